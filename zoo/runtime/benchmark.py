"""Measuring a model on this machine: speed, error and share of the roofline by dtype, decode mode and batch.

Errors are those of the artifacts' values against the exact path: float32, decode "sequential" and layout
"rows" where the sampler has these options, with the same conditions and seeds.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from zoo.errors import DoesNotFit, InvalidInput, ZooError, did_you_mean
from zoo.io.artifacts import Artifact, Image
from zoo.io.request import Request
from zoo.runtime import memory
from zoo.runtime.devices import DTYPES, dtype_name, native_bfloat16
from zoo.runtime.model import LoadedModel
from zoo.runtime.prepare import Prepared, sampler_failed
from zoo.runtime.reports import Decoding, Work, collecting
from zoo.runtime.roofline import Machine
from zoo.runtime.sampling import Batch

#: What the exact path has, as far as a sampler has these options.
EXACT = {"decode": "sequential", "layout": "rows"}
EXACT_DTYPE = "float32"

#: Loads the model in a number format by name, None being the default, and tells the seconds it took.
Open = Callable[[str | None], tuple[LoadedModel, float]]
#: Called with the number of entries that are done, and with how many there are.
OnEntry = Callable[[int, int], None]


@dataclass(frozen=True)
class Setup:
    """What to measure. Every entry runs once to warm up, then `repeat` times.

    dtypes: names of number formats, the first being the default; empty for those of `default_dtypes`.
    decodes: see `decode_modes`.
    patience: seconds that the runs of an entry may take together: fewer are made, at least one, where the
    warm-up foretells more. None makes all.
    """

    request: Request
    sizes: Sequence[int] = (1, 4, 16)
    decodes: Sequence[str] = ("",)
    dtypes: Sequence[str] = ()
    repeat: int = 3
    patience: float | None = None

    def runs_after(self, warm_up: float) -> int:
        """How many runs follow a warm-up of so many seconds."""
        if self.patience is None or warm_up * self.repeat <= self.patience:
            return self.repeat
        return max(1, int(self.patience / warm_up))


@dataclass(frozen=True)
class Difference:
    """Largest absolute and root-mean-square difference of two runs' values: pixels in [0, 1]."""

    largest: float
    rms: float


@dataclass(frozen=True)
class Depth:
    """How a batch was decoded, from the findings of its sampler."""

    layout: str
    passes: int  #: network passes that ran one after another
    tokens: int  #: passes that the sequential loop takes
    residual: float | None
    dtype: str  #: what was computed in, which may differ from what was loaded

    @property
    def tokens_per_pass(self) -> float:
        """1 for the sequential loop, more for decoding in parallel."""
        return self.tokens / self.passes if self.passes else 1.0


@dataclass(frozen=True)
class BatchTiming:
    """One batch size in one dtype and decode mode.

    `seconds` is the median of the runs, None where the batch does not fit in memory. `decode` is "" for a
    sampler without modes. `share` is the least time that the reported work takes here over the time it took.
    """

    dtype: str
    decode: str
    batch_size: int
    threads: int
    runs: tuple[float, ...] = ()
    tokens: int | None = None
    depth: Depth | None = None
    work: tuple[Work, ...] = ()
    error: Difference | None = None
    share: float | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds of a batch."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def seconds_per_sample(self) -> float | None:
        """Seconds of a batch over its samples."""
        return None if self.seconds is None else self.seconds / self.batch_size

    @property
    def samples_per_second(self) -> float | None:
        """Samples of a batch over its seconds."""
        return None if self.seconds is None else self.batch_size / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of a batch over its seconds, for models that sample token by token."""
        return None if self.seconds is None or self.tokens is None else self.tokens / self.seconds


@dataclass(frozen=True)
class Report:
    """Everything that was measured. `loads` are seconds by dtype, None where a dtype does not fit.

    `dtype` is the first of `loads`, the default; `peak_memory` is in bytes, after its entries.
    """

    reference: str
    sampler: str
    device: str
    dtype: str
    repeat: int
    loads: dict[str, float | None]
    peak_memory: int
    timings: tuple[BatchTiming, ...]
    machine: Machine
    notes: tuple[str, ...]


def decode_modes(prepared: Prepared, request: Request, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The ways of decoding to measure: the wanted ones, that of the request's own options, or all.

    ("",) for a sampler with one way; raises `InvalidInput` for one that the sampler does not have.
    """
    name, known = prepared.sampler.name, choices(type(prepared.options), "decode")
    if wanted and not known:
        raise InvalidInput(f"sampler '{name}' has no decode modes to choose from", "Leave out --decode.")
    for mode in wanted:
        if mode not in known:
            raise InvalidInput(
                f"sampler '{name}' has no decode mode '{mode}', expected one of: {', '.join(known)}",
                did_you_mean(mode, known),
            )
    if known and "decode" in request.options:
        return (prepared.options.decode,)
    return tuple(dict.fromkeys(wanted)) or known or ("",)


def choices(options: type, name: str) -> tuple[str, ...]:
    """The values of an option that is a `Literal`; () where the dataclass has no such option."""
    hint = typing.get_type_hints(options).get(name)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def exact_options(options: type) -> dict[str, str]:
    """What of `EXACT` an options dataclass has; without "sequential", its first decode mode stands for it."""
    known = {name: choices(options, name) for name in EXACT}
    exact = {name: value for name, value in EXACT.items() if value in known[name]}
    return {"decode": known["decode"][0], **exact} if known["decode"] else exact


def default_dtypes(loaded: LoadedModel) -> tuple[str, ...]:
    """The format the model was loaded in, float32, and bfloat16 where the device computes in it."""
    kind = loaded.device.type
    native = (kind == "cpu" and native_bfloat16()) or (
        kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    names = (dtype_name(loaded.dtype), EXACT_DTYPE, *(["bfloat16"] if native else []))
    return tuple(dict.fromkeys(names))


def bench(open_model: Open, setup: Setup, on_entry: OnEntry = lambda done, total: None) -> Report:
    """Measure a model in each dtype, decode mode and batch size.

    One model is held at a time. Raises what loading the first dtype raises, and `PluginError` for a sampler
    that fails; a further dtype that does not fit is told in the report.
    """
    bench = _Bench(open_model, setup, on_entry)
    return bench.run()


def tokens_of(loaded: LoadedModel) -> int | None:
    """Tokens of one sample where the model is an autoregressive flow, else None."""
    if "autoregressive-flow" not in loaded.architecture.offers:
        return None
    return int(loaded.model.latent_shape[0])


def difference(drawn: Sequence[Artifact], exact: Sequence[Artifact]) -> Difference | None:
    """Of the values of two lists of artifacts; None unless they are pictures of the same sizes."""
    largest, squares, count = [], [], 0
    for one, other in zip(drawn, exact, strict=False):
        if not (isinstance(one, Image) and isinstance(other, Image)):
            return None
        if one.pixels.shape != other.pixels.shape:
            return None
        gap = one.pixels.double() - other.pixels.double()
        largest.append(gap.abs().max())
        squares.append(gap.square().sum())
        count += gap.numel()
    if not count or len(drawn) != len(exact):
        return None
    # Tensors keep what is not a number, which `max` of Python may lose.
    return Difference(float(torch.stack(largest).max()), float((torch.stack(squares).sum() / count).sqrt()))


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: allocated on the CUDA device, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass
class _Outcome:
    """What the runs of one entry gave: seconds of each, artifacts and findings of the last."""

    runs: list[float]
    artifacts: list[Artifact]
    findings: list[object]


class _Bench:
    """One measurement: timings first, then errors and shares, which need all of them."""

    def __init__(self, open_model: Open, setup: Setup, on_entry: OnEntry) -> None:
        self._open, self._setup, self._on_entry = open_model, setup, on_entry
        self._measured: list[tuple[BatchTiming, list[Artifact]]] = []
        self._exact: dict[int, list[Artifact]] = {}
        self._loads: dict[str, float | None] = {}
        self._notes: list[str] = []

    def run(self) -> Report:
        wanted = self._setup.dtypes
        loaded, seconds = self._open(wanted[0] if wanted else None)
        names = tuple(dict.fromkeys(wanted)) or default_dtypes(loaded)
        total = len(names) * len(self._setup.decodes) * len(self._setup.sizes)
        threads = {size: loaded.threads_for(size) for size in self._setup.sizes}
        self._loads[names[0]] = seconds
        self._measure(loaded, total)
        report = self._begun(loaded)
        self._reference(loaded)
        # Else the next one would have to fit beside it.
        del loaded
        for name in names[1:]:
            self._further(name, threads, total)
        if EXACT_DTYPE not in names:
            self._load_reference()
        timings = tuple(self._finished(report.machine, *measured) for measured in self._measured)
        return replace(report, timings=timings, notes=tuple(self._notes))

    def _begun(self, loaded: LoadedModel) -> Report:
        """What the first dtype tells."""
        return Report(
            reference=loaded.reference,
            sampler=loaded.sampler_of(self._setup.request).name,
            device=str(loaded.device),
            dtype=dtype_name(loaded.dtype),
            repeat=self._setup.repeat,
            loads=self._loads,
            peak_memory=peak_memory(loaded.device),
            timings=(),
            machine=Machine(loaded.device),
            notes=(),
        )

    def _further(self, name: str, threads: dict[int, int], total: int) -> None:
        try:
            loaded, self._loads[name] = self._open(name)
        except DoesNotFit as error:
            self._loads[name] = None
            self._notes.append(error.message)
            for decode in self._setup.decodes:
                for size in self._setup.sizes:
                    self._keep(BatchTiming(name, decode, size, threads[size]), [], total)
            return
        self._measure(loaded, total)
        self._reference(loaded)

    def _load_reference(self) -> None:
        if not any(isinstance(artifact, Image) for _, drawn in self._measured for artifact in drawn):
            return
        try:
            loaded, _ = self._open(EXACT_DTYPE)
        except DoesNotFit as error:
            self._notes.append(f"errors are not known: {error.message}")
            return
        self._reference(loaded)

    def _measure(self, loaded: LoadedModel, total: int) -> None:
        for decode in self._setup.decodes:
            for size in self._setup.sizes:
                self._keep(*self._entry(loaded, decode, size), total)

    def _keep(self, timing: BatchTiming, artifacts: list[Artifact], total: int) -> None:
        self._measured.append((timing, artifacts))
        self._on_entry(len(self._measured), total)

    def _entry(self, loaded: LoadedModel, decode: str, size: int) -> tuple[BatchTiming, list[Artifact]]:
        own = {"decode": decode} if decode else {}
        options, run = _drawing(loaded, self._setup.request, size, own)
        outcome = _outcome(loaded, self._setup, run)
        depth = _depth(outcome.findings)
        tokens = tokens_of(loaded)
        timing = BatchTiming(
            dtype=dtype_name(loaded.dtype),
            decode=decode,
            batch_size=size,
            threads=loaded.threads_for(size),
            runs=tuple(outcome.runs),
            tokens=None if tokens is None else tokens * size,
            depth=depth,
            work=tuple(finding for finding in outcome.findings if isinstance(finding, Work)),
        )
        if outcome.runs and _is_exact(timing, options):
            self._exact[size] = outcome.artifacts
        return timing, outcome.artifacts

    def _reference(self, loaded: LoadedModel) -> None:
        """Draw the exact batches that no entry has drawn."""
        if dtype_name(loaded.dtype) != EXACT_DTYPE:
            return
        request, once = self._setup.request, replace(self._setup, repeat=0)
        options = exact_options(type(loaded.options(request)))
        for size in self._setup.sizes:
            if size not in self._exact:
                _, run = _drawing(loaded, request, size, options)
                self._exact[size] = _outcome(loaded, once, run).artifacts

    def _finished(self, machine: Machine, timing: BatchTiming, drawn: list[Artifact]) -> BatchTiming:
        error = difference(drawn, self._exact.get(timing.batch_size, ()))
        computed = timing.depth.dtype if timing.depth else timing.dtype
        share = None
        if timing.seconds is not None:
            floor = machine.floor(timing.work, DTYPES.get(computed, DTYPES[timing.dtype]), timing.threads)
            share = None if floor is None else floor / timing.seconds
        return replace(timing, error=error, share=share)


def _drawing(
    loaded: LoadedModel, request: Request, size: int, options: dict[str, str]
) -> tuple[Any, Callable[[], list[Artifact]]]:
    """The sampler's options for a batch of a size, and what draws it."""
    # Conditions are repeated in turn, so that every batch size draws the same mixture.
    repeated: dict[str, Any] = {
        name: [given[i % len(given)] for i in range(size)]
        for name, shared in (("prompts", 0), ("classes", 0), ("negatives", 1), ("part_prompts", 1))
        # One negative prompt, or one sequence of part prompts, is for all samples as it is.
        if len(given := getattr(request, name)) > shared
    }
    repeated["images"] = {
        role: [request.images_of(i % request.conditions * request.num)[role] for i in range(size)]
        for role in request.images
    }
    wanted = replace(
        request,
        **repeated,
        num=1 if request.prompts or request.classes or request.images else size,
        options={**request.options, **options},
    )
    items, built = loaded.plan(wanted), loaded.options(wanted)
    batch, sampler = Batch(items[:], request.size), loaded.sampler_of(request).name
    return built, lambda: loaded.draw(batch, built, batch.noise(), lambda *_: None, sampler)


def _outcome(loaded: LoadedModel, setup: Setup, run: Callable[[], list[Artifact]]) -> _Outcome:
    """One warm-up and the runs after it; no runs and no artifacts where memory runs out."""
    seconds: list[float] = []
    artifacts: list[Artifact] = []
    findings: list[object] = []
    try:
        while len(seconds) < 1 + (setup.runs_after(seconds[0]) if seconds else 0):
            with collecting() as findings:
                started = time.perf_counter()
                # Artifacts lie in RAM, so a GPU has finished when they are there.
                artifacts = run()
                seconds.append(time.perf_counter() - started)
    except ZooError:
        raise
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise sampler_failed(loaded.sampler_of(setup.request), error) from error
        return _Outcome([], [], [])
    return _Outcome(seconds[1:], artifacts, findings)


def _is_exact(timing: BatchTiming, options: Any) -> bool:
    """Whether an entry ran as the exact path does, if only because nothing else pays here."""
    ran = {name: getattr(options, name, None) for name in EXACT}
    if timing.depth:
        ran["layout"] = timing.depth.layout
    exact = exact_options(type(options))
    return timing.dtype == EXACT_DTYPE and all(ran[name] == value for name, value in exact.items())


def _depth(findings: Sequence[object]) -> Depth | None:
    """All that a batch reported about its decoding, as one."""
    found = [finding for finding in findings if isinstance(finding, Decoding)]
    if not found:
        return None
    return Depth(
        layout="+".join(dict.fromkeys(one.layout for one in found)),
        passes=sum(one.passes for one in found),
        tokens=sum(one.tokens for one in found),
        residual=max((one.residual for one in found if one.residual is not None), default=None),
        dtype=found[0].dtype,
    )
