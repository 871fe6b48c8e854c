"""What a request accepts."""

from __future__ import annotations

import math

import pytest

from zoo.errors import ExitCode, InvalidInput
from zoo.io.request import MAX_SEED, Request


def test_defaults_ask_for_one_sample():
    assert Request().total == 1 and Request().seed == 0


@pytest.mark.parametrize(
    ("given", "total"),
    [
        ({"prompts": "a cat"}, 1),
        ({"prompts": ["a", "b"], "num": 3}, 6),
        ({"classes": 4, "num": 2}, 2),
        ({"classes": ["cat", 1]}, 2),
        ({"num": 5}, 5),
    ],
)
def test_totals(given, total):
    assert Request(**given).total == total


def test_single_conditions_become_tuples():
    assert Request(prompts="a cat").prompts == ("a cat",)
    assert Request(classes="cat").classes == ("cat",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num": 0}, "num is 0, expected at least 1"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"batch_size": -1}, "batch_size is -1, expected at least 1"),
        ({"size": (0, 8)}, "size is 8x0, expected at least 1x1"),
        ({"seed": -1}, f"seed is -1, expected 0 to {MAX_SEED - 1}"),
        ({"seed": MAX_SEED, "num": 2}, f"seed is {MAX_SEED}, expected 0 to {MAX_SEED - 2}"),
        ({"guidance": -0.5}, "guidance is -0.5, expected a number of at least 0"),
        ({"guidance": math.nan}, "guidance is nan, expected a number of at least 0"),
        ({"guidance": math.inf}, "guidance is inf, expected a number of at least 0"),
        ({"prompts": "a", "classes": "b"}, "both prompts and classes were given, expected one of them"),
    ],
)
def test_wrong_requests(given, message):
    with pytest.raises(InvalidInput) as caught:
        Request(**given)
    assert caught.value.message == message
    assert caught.value.exit_code is ExitCode.USAGE
