"""`zoo bench`: what is measured, and that it is measured as it says."""

from __future__ import annotations

import pytest

from zoo.io.request import Request
from zoo.runtime.benchmark import measure_batches
from zoo.runtime.model import load


def test_json(zoo):
    document = zoo("bench", "toy", "--batches", "1,3", "--repeat", 2, "--json").json
    assert document["reference"] == "toy:shapes" and document["sampler"] == "toy"
    assert (document["device"], document["dtype"], document["repeat"]) == ("cpu", "float32", 2)
    assert document["load_seconds"] > 0 and document["peak_memory"] > 50 * 2**20
    one, three = document["batches"]
    assert (one["batch_size"], three["batch_size"]) == (1, 3)
    assert (one["threads"], three["threads"]) == (1, 1)
    assert len(three["runs"]) == 2 and three["seconds"] == pytest.approx(sum(three["runs"]) / 2)
    assert three["seconds_per_sample"] == pytest.approx(three["seconds"] / 3)
    assert three["samples_per_second"] == pytest.approx(3 / three["seconds"])
    assert three["tokens_per_second"] == pytest.approx(3 * 16 / three["seconds"])


def test_seconds_are_seconds(zoo):
    document = zoo(
        "bench", "toy", "--batches", "4", "--repeat", 1, "-O", "delay=0.05", "--steps", 2, "--json"
    ).json
    (entry,) = document["batches"]
    # The toy sampler sleeps twice for the delay, once for the whole batch.
    assert entry["seconds"] >= 0.1 and entry["seconds_per_sample"] == entry["seconds"] / 4


def test_the_table(zoo):
    out = zoo("bench", "toy", "--batches", "1,2").lines
    assert out[0].startswith("toy:shapes on cpu, float32") and out[1].startswith("load ")
    assert "tokens per second" in out[2] and len(out) == 5
    assert len(zoo("bench", "toy", "--batches", "1,2", "-q").lines) == 2


def test_a_batch_that_does_not_fit_is_told(zoo):
    arguments = ("bench", "toy", "--batches", "1,4", "-O", "limit=2")
    one, four = zoo(*arguments, "--json").json["batches"]
    assert one["seconds"] > 0 and four["seconds"] is None and four["runs"] == []
    assert "does not fit" in zoo(*arguments).out


def test_a_warm_up_is_not_counted_and_every_batch_has_its_size(toy):
    loaded = load("toy:shapes", device="cpu")
    sizes = []
    draw = type(loaded).draw

    class Watched(type(loaded)):
        def draw(self, batch, *given):
            sizes.append((len(batch), batch.prompts[0]))
            return draw(self, batch, *given)

    watched = Watched(**{name: getattr(loaded, name) for name in type(loaded).__dataclass_fields__})
    request = Request(prompts=["a red circle", "a blue ring"])
    timings = list(measure_batches(watched, request, [1, 5], repeat=2))
    assert sizes == [(1, "a red circle")] * 3 + [(5, "a red circle")] * 3
    assert [len(timing.runs) for timing in timings] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("toy", "--batches", "1,x"), 2, "'1,x' is not a list of batch sizes"),
        (("toy", "--batches", "0"), 2, "'0' is not a list of batch sizes"),
        (("toy", "--repeat", 0), 2, "'--repeat'"),
        (("toy", "-p", "a mauve ring"), 2, "does not know the word 'mauve'"),
        (("toy:unpublished",), 3, "nobody has published"),
        (("toy", "-O", "fail=1"), 6, "failed: KeyError"),
    ],
)
def test_what_is_refused(zoo, arguments, code, text):
    result = zoo("bench", *arguments)
    assert result.code == code and text in result.err and result.out == ""


def test_threads_can_be_set(zoo):
    document = zoo("bench", "toy", "--batches", "1", "--repeat", 1, "--threads", 2, "--json").json
    assert document["batches"][0]["threads"] == 2
