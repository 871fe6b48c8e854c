"""Decoding as users meet it: the shipped flow, exact and parallel, and what the command tells about it."""

from __future__ import annotations

import pytest
import torch

import zoo as library
from zoo.runtime.reports import Decoding, collecting


def test_parallel_decoding_of_the_shipped_flow() -> None:
    model = library.load("tarflow:shapes", device="cpu")
    pictures, decodings = {}, {}
    for decode in ("sequential", "jacobi"):
        request = library.Request(num=4, seed=3, options={"decode": decode})
        with collecting() as findings:
            pictures[decode] = torch.stack([image.pixels for image in model.sample(request)])
        (decodings[decode],) = (finding for finding in findings if isinstance(finding, Decoding))
    exact, parallel = decodings["sequential"], decodings["jacobi"]
    assert (exact.passes, exact.residual) == (378, None)
    assert 2.8 * parallel.passes <= parallel.tokens == 378
    assert parallel.residual <= 1e-5 and parallel.gave_way == 0
    assert (pictures["jacobi"] - pictures["sequential"]).abs().max() <= 1e-4


def test_verbose_tells_how_it_was_decoded(zoo) -> None:
    err = zoo("sample", "tarflow:shapes", "-v", "-p", "a red circle", "-O", "layout=rows").err
    assert "decoding: sequential, rows float32 weights, 2 rows, 378 passes" in err
    err = zoo("sample", "tarflow:shapes", "-v", "-O", "decode=jacobi", "-O", "limit=2,100").err
    assert "passes for 378 tokens, error estimate" in err
    assert "1 of 6 blocks finished token by token" in err


def test_json_tells_every_block(zoo) -> None:
    document = zoo(
        "sample", "tarflow:shapes", "-n", 2, "--batch-size", 1, "-O", "decode=jacobi", "--json"
    ).json
    first, second = document["decoding"]
    assert first["decode"] == "jacobi" and first["tokens"] == 378 and first["residual"] <= 1e-5
    assert [block["block"] for block in first["blocks"]] == list(range(6))
    assert second["passes"] == sum(block["passes"] for block in second["blocks"])
    assert zoo("sample", "toy", "--json").json["decoding"] == []


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("decode=both", "expected one of: sequential, jacobi"),
        ("layout=diagonal", "expected one of: auto, rows"),
        ("tolerance=0", "expected a positive number"),
        ("window=-2", "expected a number of tokens"),
        ("limit=4,0", "expected numbers of passes"),
    ],
)
def test_options_of_decoding_that_are_refused(zoo, option, text) -> None:
    result = zoo("sample", "tarflow:shapes", "-O", option)
    assert result.code == 2 and text in result.err and "Traceback" not in result.err
