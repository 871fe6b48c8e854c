"""`zoo bench`: what is measured, and that it is measured as it says."""

from __future__ import annotations

import sys
from dataclasses import make_dataclass
from typing import Literal

import pytest
import torch
from third_party import install_plugin

from zoo.errors import DoesNotFit
from zoo.io.artifacts import Image
from zoo.io.request import Request
from zoo.runtime.benchmark import Setup, bench, difference, exact_options
from zoo.runtime.model import load

# A sampler with decode modes: jacobi is off by 1/4 in half of the pixels, each layout but rows by 1/8,
# bfloat16 by 1/16.
DECODER = """
from dataclasses import dataclass
from typing import Literal

import torch

from zoo import hookimpl
from zoo.io.artifacts import Image
from zoo.runtime.reports import BlockDecoding, Decoding, Work, report

CALLS = []


@dataclass(frozen=True)
class Options:
    decode: Literal["sequential", "jacobi"] = "sequential"
    layout: Literal["auto", "rows"] = "auto"
    auto: str = "packed"
    limit: int = 99


def sample(loaded, batch, options, noise, on_step):
    if len(batch) > options.limit:
        raise MemoryError
    dtype = str(loaded.dtype).removeprefix("torch.")
    layout = options.auto if options.layout == "auto" else "rows"
    CALLS.append((dtype, options.decode, options.layout, len(batch)))
    passes, residual = (10, 0.5) if options.decode == "jacobi" else (30, None)
    block = BlockDecoding(0, options.decode, 15, passes // 2, residual=residual)
    report(Decoding(options.decode, len(batch), layout, dtype, False, (block, block)))
    report(Work("decoding", bytes=3 * 10**6, flops=10**3, working_set=2**20))
    report(Work("denoising", bytes=10, flops=10**6, working_set=2**20))
    pixels = torch.full((3, 8, 8), 0.5) + (layout != "rows") / 8 + (dtype == "bfloat16") / 16
    pixels[:, :4] += (options.decode == "jacobi") / 4
    return [Image(pixels) for _ in batch.items]


@hookimpl
def register_samplers(register):
    register("decoder", sample, options=Options, needs=("painter",))
"""


@pytest.fixture
def decoder(zoo, tmp_path, monkeypatch):
    """Run `zoo bench toy` with that sampler, once for each entry."""
    monkeypatch.setattr("zoo.runtime.benchmark.native_bfloat16", lambda: True)
    install_plugin(tmp_path / "decoder", "decoder", DECODER, cards={})
    monkeypatch.syspath_prepend(str(tmp_path / "decoder"))
    monkeypatch.delitem(sys.modules, "acme_decoder", raising=False)

    def call(*arguments):
        return zoo("bench", "toy", "--sampler", "decoder", "--repeat", 1, *arguments)

    yield call
    sys.modules.pop("acme_decoder", None)


def calls():
    return sys.modules["acme_decoder"].CALLS


def nothing_was_drawn():
    return "acme_decoder" not in sys.modules or calls() == []


# Speed


def test_json(zoo):
    document = zoo("bench", "toy", "--batches", "1,3", "--repeat", 2, "--dtypes", "float32", "--json").json
    assert document["reference"] == "toy:shapes" and document["sampler"] == "toy"
    assert (document["device"], document["dtype"], document["repeat"]) == ("cpu", "float32", 2)
    assert document["load_seconds"] > 0 and document["peak_memory"] > 50 * 2**20
    assert document["loads"] == [{"dtype": "float32", "seconds": document["load_seconds"]}]
    one, three = document["batches"]
    assert (one["batch_size"], three["batch_size"]) == (1, 3)
    assert (one["threads"], three["threads"]) == (1, 1)
    assert len(three["runs"]) == 2 and three["seconds"] == pytest.approx(sum(three["runs"]) / 2)
    assert three["seconds_per_sample"] == pytest.approx(three["seconds"] / 3)
    assert three["samples_per_second"] == pytest.approx(3 / three["seconds"])
    assert three["tokens_per_second"] == pytest.approx(3 * 16 / three["seconds"])


def test_a_sampler_that_tells_nothing(zoo):
    document = zoo("bench", "toy", "--batches", "2", "--repeat", 1, "--dtypes", "float32", "--json").json
    (entry,) = document["batches"]
    assert (entry["dtype"], entry["decode"], entry["computed_in"]) == ("float32", "", "float32")
    # Float32 is its own reference.
    assert (entry["error"], entry["error_rms"]) == (0.0, 0.0)
    names = ("layout", "passes", "tokens_per_pass", "residual", "roofline_share")
    assert {entry[name] for name in names} == {None}
    assert document["machine"] == {"bandwidth": [], "matmul": []} and document["plot"] is None


def test_seconds_are_seconds(zoo):
    document = zoo(
        "bench", "toy", "--batches", "4", "--repeat", 1, "-O", "delay=0.05", "--steps", 2, "--json"
    ).json
    entry = document["batches"][0]
    # The toy sampler sleeps twice for the delay, once for the whole batch.
    assert entry["seconds"] >= 0.1 and entry["seconds_per_sample"] == entry["seconds"] / 4


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
    setup = Setup(request, sizes=[1, 5], dtypes=["float32"], repeat=2)
    done = []
    report = bench(lambda dtype: (watched, 0.25), setup, lambda *given: done.append(given))
    assert sizes == [(1, "a red circle")] * 3 + [(5, "a red circle")] * 3
    assert [len(timing.runs) for timing in report.timings] == [2, 2]
    assert report.loads == {"float32": 0.25} and done == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("warm_up", "patience", "runs"),
    [(0.1, 10.0, 3), (3.0, 10.0, 3), (4.0, 10.0, 2), (6.0, 10.0, 1), (60.0, 10.0, 1), (60.0, None, 3)],
)
def test_long_runs_are_repeated_less_often(warm_up, patience, runs):
    assert Setup(Request(), repeat=3, patience=patience).runs_after(warm_up) == runs


def test_a_batch_that_does_not_fit_is_told(zoo):
    arguments = ("bench", "toy", "--batches", "1,4", "-O", "limit=2", "--dtypes", "float32")
    one, four = zoo(*arguments, "--json").json["batches"]
    assert one["seconds"] > 0 and four["seconds"] is None and four["runs"] == []
    assert one["error"] == 0.0 and four["error"] is None
    assert "does not fit" in zoo(*arguments).out
    assert len(zoo(*arguments, "-q").lines) == 1


def test_threads_can_be_set(zoo):
    document = zoo("bench", "toy", "--batches", "1", "--repeat", 1, "--threads", 2, "--json").json
    assert document["batches"][0]["threads"] == 2


# Dtypes and decode modes


@pytest.mark.parametrize(
    ("native", "arguments", "dtypes"),
    [
        (False, (), ["float32"]),
        (True, (), ["float32", "bfloat16"]),
        (True, ("--dtype", "float16"), ["float16"]),
        (False, ("--dtypes", "bfloat16, float32,bfloat16"), ["bfloat16", "float32"]),
    ],
)
def test_dtypes(zoo, monkeypatch, native, arguments, dtypes):
    monkeypatch.setattr("zoo.runtime.benchmark.native_bfloat16", lambda: native)
    document = zoo("bench", "toy", "--batches", "1", "--repeat", 1, "--json", *arguments).json
    assert [entry["dtype"] for entry in document["batches"]] == dtypes
    assert [load["dtype"] for load in document["loads"]] == dtypes and document["dtype"] == dtypes[0]
    # The toy's weights are the same in every format.
    assert [entry["error"] for entry in document["batches"]] == [0.0] * len(dtypes)


def test_the_configured_dtype_comes_first(zoo, monkeypatch):
    monkeypatch.setattr("zoo.runtime.benchmark.native_bfloat16", lambda: False)
    assert zoo("config", "set", "dtype", "float16").code == 0
    document = zoo("bench", "toy", "--batches", "1", "--repeat", 1, "--json").json
    assert [entry["dtype"] for entry in document["batches"]] == ["float16", "float32"]


def test_every_way_of_decoding_is_compared_with_the_exact_one(decoder):
    entries = decoder("--batches", "2", "--json").json["batches"]
    found = {(entry["dtype"], entry["decode"]): entry for entry in entries}
    errors = {way: entry["error"] for way, entry in found.items()}
    assert errors == {
        ("float32", "sequential"): 0.125,
        ("float32", "jacobi"): 0.375,
        ("bfloat16", "sequential"): 0.1875,
        ("bfloat16", "jacobi"): 0.4375,
    }
    rms = (0.375**2 / 2 + 0.125**2 / 2) ** 0.5
    assert found["float32", "jacobi"]["error_rms"] == pytest.approx(rms)


def test_depth_and_layout_are_told(decoder):
    sequential, jacobi = decoder("--batches", "2", "--dtypes", "float32", "--json").json["batches"]
    assert (sequential["passes"], sequential["tokens_per_pass"], sequential["residual"]) == (30, 1.0, None)
    assert (jacobi["passes"], jacobi["tokens_per_pass"], jacobi["residual"]) == (10, 3.0, 0.5)
    assert (jacobi["layout"], jacobi["computed_in"]) == ("packed", "float32")


def test_the_exact_path_runs_once_for_each_batch_size(decoder):
    decoder("--batches", "1,2")
    exact = [call for call in calls() if call[2] == "rows"]
    assert exact == [("float32", "sequential", "rows", 1), ("float32", "sequential", "rows", 2)]
    # Two dtypes, two modes and two sizes, each with its warm-up.
    assert len(calls()) == 2 * 2 * 2 * 2 + 2


def test_an_entry_that_is_exact_is_the_reference(decoder):
    entries = decoder("--batches", "1", "-O", "auto=rows", "--json").json["batches"]
    assert [entry["error"] for entry in entries] == [0.0, 0.25, 0.0625, 0.3125]
    assert all(layout == "auto" for _, _, layout, _ in calls())


def test_float32_is_loaded_for_the_errors_where_it_is_not_measured(decoder):
    (entry,) = decoder("--batches", "1", "--dtype", "bfloat16", "--decode", "jacobi", "--json").json[
        "batches"
    ]
    assert (entry["dtype"], entry["decode"], entry["error"]) == ("bfloat16", "jacobi", 0.4375)
    assert calls()[-1] == ("float32", "sequential", "rows", 1)


@pytest.mark.parametrize("arguments", [("--decode", "jacobi"), ("-O", "decode=jacobi")])
def test_modes_can_be_chosen(decoder, arguments):
    document = decoder("--batches", "1", "--dtypes", "float32", "--json", *arguments).json
    assert [(entry["decode"], entry["error"]) for entry in document["batches"]] == [("jacobi", 0.375)]


def test_a_batch_beyond_memory_has_no_error(decoder):
    one, two = decoder(
        "--batches", "1,2", "--dtypes", "float32", "--decode", "jacobi", "-O", "limit=1", "--json"
    ).json["batches"]
    assert one["error"] == 0.375 and (two["seconds"], two["error"], two["roofline_share"]) == (None,) * 3


@pytest.mark.parametrize("measured", ["bfloat16,float32", "bfloat16"])
def test_a_dtype_that_does_not_fit(decoder, monkeypatch, measured):
    def refuse(module, reference, device, dtype):
        if dtype == torch.float32:
            raise DoesNotFit("float32 is too large")

    monkeypatch.setattr("zoo.runtime.memory.check_weights_fit", refuse)
    result = decoder("--batches", "1", "--decode", "jacobi", "--dtypes", measured, "--json")
    entries = result.json["batches"]
    assert result.code == 0 and "Warning" in result.err and "float32 is too large" in result.err
    assert entries[0]["seconds"] > 0 and entries[0]["error"] is None
    assert [entry["seconds"] for entry in entries[1:]] == [None] * measured.count(",")


def test_a_first_dtype_that_does_not_fit_is_an_error(decoder, monkeypatch):
    def refuse(*given):
        raise DoesNotFit("all are too large")

    monkeypatch.setattr("zoo.runtime.memory.check_weights_fit", refuse)
    assert decoder("--batches", "1").code == 7


def test_the_share_of_the_roofline(decoder):
    document = decoder("--batches", "2", "--dtypes", "float32", "--decode", "jacobi", "--json").json
    (bandwidth,), (matmul,) = document["machine"]["bandwidth"], document["machine"]["matmul"]
    assert (bandwidth["threads"], bandwidth["buffer_bytes"]) == (1, 2**20)
    assert (matmul["threads"], matmul["dtype"]) == (1, "float32")
    reading, computing = bandwidth["gb_per_second"] * 1e9, matmul["gflop_per_second"] * 1e9
    floor = max(3e6 / reading, 1e3 / computing) + max(10 / reading, 1e6 / computing)
    (entry,) = document["batches"]
    assert entry["roofline_share"] == pytest.approx(floor / entry["seconds"])


@pytest.mark.parametrize(
    ("fields", "exact"),
    [
        ({"decode": Literal["jacobi", "sequential"]}, {"decode": "sequential"}),
        (
            {"decode": Literal["loop", "beam"], "layout": Literal["rows"]},
            {"decode": "loop", "layout": "rows"},
        ),
        ({"decode": str, "layout": Literal["wide"], "steps": int}, {}),
    ],
)
def test_what_is_exact_follows_from_the_options(fields, exact):
    assert exact_options(make_dataclass("Options", fields.items())) == exact


def test_differences():
    black, grey = Image(torch.zeros(3, 2, 2)), Image(torch.full((3, 2, 2), 0.5))
    found = difference([black, grey], [black, black])
    assert found is not None and found.largest == 0.5 and found.rms == pytest.approx(0.125**0.5)
    assert difference([black], [Image(torch.zeros(3, 2, 4))]) is None
    assert difference([black], [black, black]) is None and difference([], []) is None
    assert difference([black], ["a text"]) is None
    broken = Image(torch.full((3, 2, 2), float("nan")))
    nothing = difference([black, broken, black], [black] * 3)
    assert nothing is not None and nothing.largest != nothing.largest


# The table


def test_the_table(zoo):
    arguments = ("bench", "toy", "--batches", "1,2", "--dtypes", "float32")
    out = zoo(*arguments).lines
    assert out[0] == "toy:shapes on cpu, float32, 1 thread, sampler toy"
    assert out[1].startswith("load 0.") and " s in float32; peak memory " in out[1]
    # What a sampler does not tell has no column.
    assert out[2].split() == ["dtype", "batch", "s/sample", "samples/s", "tokens/s", "error"]
    assert len(out) == 5 and out[3].split()[:2] == ["float32", "1"] and out[3].endswith("  0")
    assert len(zoo(*arguments, "-q").lines) == 2


def test_the_table_of_a_sampler_that_tells_all(decoder):
    out = decoder("--batches", "2").lines
    assert out[2].startswith("measured here: 1 thread, ") and " GB/s in 1 MiB, " in out[2]
    assert "float32 " in out[2] and "bfloat16 " in out[2] and out[2].endswith(" GFLOP/s")
    titles = "dtype decode batch layout passes s/sample samples/s tokens/s error roofline"
    assert out[3].split() == titles.split()
    assert out[4].split()[:5] == ["float32", "sequential", "2", "packed", "30"]
    assert out[5].split()[:6] == ["float32", "jacobi", "2", "packed", "10", "(3.0x)"]
    assert "4e-01" in out[5] and out[5].endswith("%")
    assert len(out) == 8 and max(map(len, out)) <= 110


def test_a_narrow_terminal_gets_what_fits(decoder, monkeypatch):
    monkeypatch.setattr("zoo_cli.bench_report._room", lambda: 80)
    result = decoder("--batches", "2")
    assert "layout" not in result.out and "roofline" in result.out
    assert max(map(len, result.lines[3:])) <= 80
    assert "room for layout" in result.err


# The plot


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("b.SVG", b"<?xml"), ("c.pdf", b"%PDF")])
def test_a_plot(decoder, tmp_path, name, start):
    path = tmp_path / "plots" / name
    result = decoder("--batches", "1,2", "--plot", path, "--json")
    assert result.code == 0 and result.json["plot"] == str(path)
    assert path.read_bytes().startswith(start)


def test_what_a_plot_shows(decoder, tmp_path):
    path = tmp_path / "speed.svg"
    decoder("--batches", "1,2", "--plot", path)
    text = path.read_text(encoding="utf-8")
    words = ("toy:shapes on cpu", "batch size (samples)", "speed (samples per second)", "bfloat16 jacobi")
    # Letters are drawn as curves; a comment says what they spell.
    assert all(f"<!-- {word} -->" in text for word in words)


def test_a_plot_without_points_is_a_warning(decoder, tmp_path):
    path = tmp_path / "speed.png"
    result = decoder("--batches", "1", "-O", "limit=0", "--plot", path, "--json")
    assert result.code == 0 and "there is no plot" in result.err
    assert result.json["plot"] is None and not path.exists()


def test_a_plot_is_not_overwritten(decoder, tmp_path):
    path = tmp_path / "speed.png"
    path.write_text("mine", encoding="utf-8")
    result = decoder("--batches", "1", "--plot", path)
    assert result.code == 1 and "exists already" in result.err and path.read_text(encoding="utf-8") == "mine"
    assert result.out == "" and decoder("--batches", "1", "--plot", path, "--overwrite").code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("speed.gif", 2, "is not the name of a plot, expected one that ends in .png, .svg, .pdf"),
        ("speed", 2, "is not the name of a plot"),
        ("file/speed.png", 1, "is a file, not a folder"),
    ],
)
def test_a_plot_that_cannot_be_written_costs_no_measurement(decoder, tmp_path, name, code, text):
    (tmp_path / "file").touch()
    result = decoder("--batches", "1", "--plot", tmp_path / name)
    assert result.code == code and text in result.err and result.out == ""
    assert "--out" not in result.err and nothing_was_drawn()


def test_a_plot_needs_its_extra(decoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = decoder("--batches", "1", "--plot", tmp_path / "speed.png")
    assert result.code == 6 and "'matplotlib', which is not installed" in result.err
    assert 'pip install "zoo[plot]"' in result.err and result.out == ""
    assert nothing_was_drawn()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("toy", "--batches", "1,x"), 2, "'1,x' is not a list of batch sizes"),
        (("toy", "--batches", "0"), 2, "'0' is not a list of batch sizes"),
        (("toy", "--repeat", 0), 2, "'--repeat'"),
        (("toy", "--dtypes", "float32,float8"), 2, "'float8' is not a number format"),
        (("toy", "--dtypes", "float32,"), 2, "'float32,' is not a list of names"),
        (("toy", "--dtypes", "float32", "--dtype", "float32"), 2, "give one of them"),
        (("toy", "--decode", "jacobi"), 2, "sampler 'toy' has no decode modes to choose from"),
        (("toy", "-O", "decode=jacobi"), 2, "sampler 'toy' has no option 'decode'"),
        (("toy", "-p", "a mauve ring"), 2, "does not know the word 'mauve'"),
        (("toy:unpublished",), 3, "nobody has published"),
        (("toy", "-O", "fail=1"), 6, "failed: KeyError"),
    ],
)
def test_what_is_refused(zoo, arguments, code, text):
    result = zoo("bench", *arguments)
    assert result.code == code and text in result.err and result.out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--decode", "jakobi"), "no decode mode 'jakobi', expected one of: sequential, jacobi"),
        (("-O", "decode=jakobi"), "option decode is 'jakobi', expected one of: sequential, jacobi"),
        (("--decode", "jacobi", "-O", "decode=jacobi"), "give one of them"),
    ],
)
def test_modes_that_are_refused(decoder, arguments, text):
    result = decoder(*arguments)
    assert result.code == 2 and text in result.err and result.out == ""
