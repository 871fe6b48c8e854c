"""Options and small steps that the verbs which run a model share: sample, replay, eval and bench."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zoo.errors import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.io.artifacts import Artifact, Image
    from zoo.io.previews import Previews
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.sampling import OnStep
    from zoo.session import Session
    from zoo_cli.output import Output, Step

Function = TypeVar("Function", bound=Callable[..., Any])

_DTYPES = ("float32", "bfloat16", "float16")


class Count(click.IntRange):
    """A whole number of at least 1."""

    name = "integer"

    def __init__(self) -> None:
        super().__init__(min=1)


def whole_numbers(text: str) -> tuple[int, ...] | None:
    """Whole numbers with commas between them; none where the text is anything else."""
    parts = [part.strip() for part in text.split(",")]
    known = all(part.isdecimal() and part.isascii() for part in parts)
    return tuple(int(part) for part in parts) if known else None


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """`key=value` as a pair of texts."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            self.fail(f"'{value}' is not of the form key=value, such as guidance=2.0.", param, ctx)
        return key.strip(), text.strip()


class PictureFile(click.ParamType):  # type: ignore[type-arg]
    """`FILE` or `ROLE=FILE` as (role, path)."""

    name = "[ROLE=]FILE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        from zoo.io.prompt_files import USUAL_ROLE

        # Only a plain word is a role: a file whose name has such a beginning is given as ./NAME.
        named = re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*)=(.*)", value, re.DOTALL)
        role, path = named.groups() if named else (USUAL_ROLE, value)
        if not path:
            self.fail(f"'{value}' names no file, expected FILE or ROLE=FILE.", param, ctx)
        return role, path


class Size(click.ParamType):  # type: ignore[type-arg]
    """`WxH` or one number for a square, as (height, width)."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        from zoo.io.request import read_size

        size = read_size(value)
        if size is None:
            self.fail(f"'{value}' is not a size, expected WIDTHxHEIGHT or one number.", param, ctx)
        return size


class Seed(click.ParamType):  # type: ignore[type-arg]
    """A whole number, or "random" for one that is drawn now."""

    name = "seed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value.strip().lower() == "random":
            import secrets

            # Short enough to be typed again.
            return secrets.randbelow(2**32)
        if not re.fullmatch(r"[+-]?\d+", value.strip()):
            hint = did_you_mean(value, ["random"])
            self.fail(f"'{value}' is not a whole number or 'random'. {hint}".strip(), param, ctx)
        return int(value)


def _all(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def device_options(function: Function) -> Function:
    """--device, --dtype, --weights and --threads: where and how a model runs, and with which file."""
    return _all(
        click.option(
            "--device", metavar="NAME", help="cuda, cuda:N, mps or cpu; by default the best there is."
        ),
        click.option("--dtype", type=click.Choice(_DTYPES), help="Number format; by default the card's."),
        click.option(
            "--weights", metavar="PATH", help="A weights file of your own, or a folder of <role>.safetensors."
        ),
        click.option(
            "--threads", type=Count(), help="CPU threads; by default one for small models, else all."
        ),
    )(function)


def sampler_options(function: Function) -> Function:
    """--sampler, --steps, --guidance and -O: how samples are drawn."""
    return _all(
        click.option("--sampler", metavar="NAME", help="Another sampler than the card's."),
        click.option("--steps", type=Count(), help="Sampling steps, for samplers that have them."),
        click.option("--guidance", type=float, help="Guidance weight; what it means is the sampler's own."),
        options_option,
    )(function)


def options_option(function: Function) -> Function:
    """-O: any option of the sampler."""
    return click.option(
        "-O", "--option", "options", type=KeyValue(), multiple=True, help="A sampler option; repeatable."
    )(function)


def condition_options(function: Function) -> Function:
    """--prompt, --class and --size: what is drawn."""
    return _all(
        click.option("-p", "--prompt", "prompts", multiple=True, help="What to draw, or to do; repeatable."),
        click.option("--class", "classes", multiple=True, help="A class by name or number; repeatable."),
        click.option("--size", type=Size(), help="Size in pixels, for models that can choose."),
    )(function)


def negative_option(function: Function) -> Function:
    """--negative: what a text model keeps away from."""
    return click.option(
        "--negative", metavar="TEXT", help="What to keep away from, for models that take text."
    )(function)


def task_option(function: Function) -> Function:
    """--task: what a model that can do several things shall do."""
    return click.option(
        "--task", metavar="NAME", help="What to do, for models with several tasks; zoo show lists them."
    )(function)


def image_option(help: str) -> Callable[[Function], Function]:
    """--image: pictures that a model is given to read or to change."""
    return click.option("--image", "images", type=PictureFile(), multiple=True, help=help)


def part_prompt_option(function: Function) -> Function:
    """--part-prompt or --layer-prompt: what each part of a sample shows."""
    return click.option(
        "--part-prompt",
        "--layer-prompt",
        "part_prompts",
        metavar="TEXT",
        multiple=True,
        help="What one part of each sample shows, for models that read it; repeatable, layers from back to "
        "front.",
    )(function)


def batch_option(function: Function) -> Function:
    """--batch-size: how many samples are drawn at once."""
    return click.option(
        "--batch-size",
        type=Count(),
        help="Samples drawn at once; by default what fits. Never changes a picture.",
    )(function)


def load_model(
    session: Session, reference: str, out: Output, given: Mapping[str, Any], sampler: str | None = None
) -> tuple[LoadedModel, float]:
    """Load as `device_options` say, the user's settings behind them; returns model and seconds it took."""
    from zoo.runtime.model import load
    from zoo.settings import load_settings

    settings = load_settings()
    started = time.perf_counter()
    loaded = load(
        reference,
        device=given["device"] or settings.get("device"),
        dtype=given["dtype"] or settings.get("dtype"),
        weights=given["weights"],
        sampler=sampler,
        session=session,
        threads=given["threads"],
    )
    seconds = time.perf_counter() - started
    show_warnings(session, out)
    _describe(loaded, seconds, out)
    return loaded, seconds


def picture_of(artifact: Artifact) -> Image:
    """A picture that shows an artifact of any kind and tells how that was made."""
    picture = artifact.picture()
    if picture.provenance is None and artifact.provenance is not None:
        return replace(picture, provenance=artifact.provenance)
    return picture


def show_warnings(session: Session, out: Output) -> None:
    """Everything that went wrong without stopping, each once."""
    for text in [*session.warnings, *session.plugins.warnings]:
        out.warning(text)


def where(loaded: LoadedModel) -> str:
    """Device and dtype in words: "cpu, float32"."""
    from zoo.runtime.devices import dtype_name

    return f"{loaded.device}, {dtype_name(loaded.dtype)}"


def _describe(loaded: LoadedModel, seconds: float, out: Output) -> None:
    if not out.verbose:
        return
    from zoo.runtime.components import Components
    from zoo.runtime.devices import dtype_name

    out.detail(f"loaded {loaded.reference} in {seconds:.2f} s on {where(loaded)}: {loaded.weights}")
    parts = loaded.components.parts.values() if isinstance(loaded.components, Components) else ()
    for part in parts:
        out.detail(f"{part.role}: {part.component.architecture} in {dtype_name(part.dtype)}")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


class Counted:
    """Follows a run, for a bar and previews: `finished` counts samples, `on_step` steps of a batch."""

    def __init__(self, move: Step, total: int, batch_size: int, previews: Previews | None = None) -> None:
        self._move = move
        self._until = total
        self._batch_size = batch_size
        self._previews = previews
        self._finished = 0
        self._shown = 0.0

    @property
    def on_step(self) -> OnStep:
        """What a sampler reports to."""
        return self

    def group(self, samples: int, batch_size: int) -> None:
        """The next so many samples are drawn by themselves, in batches of this size."""
        self._until = self._finished + samples
        self._batch_size = batch_size

    def finished(self, count: int) -> None:
        """So many samples are done."""
        self._finished = count
        self._show(count)

    def wants_preview(self, step: int, total: int) -> bool:
        """Whether an estimate after this step would be shown."""
        return self._previews is not None and self._previews.due(step, total)

    def __call__(self, step: int, total: int, preview: Tensor | None) -> None:
        """A batch is at `step` of `total`."""
        batch = min(self._batch_size, self._until - self._finished)
        self._show(self._finished + batch * step / max(1, total))
        if self._previews is not None:
            self._previews.show(self._finished, step, total, preview)

    def _show(self, done: float) -> None:
        # The pictures of a batch are counted one by one after its last step: the bar never goes back for
        # that.
        self._shown = max(self._shown, done)
        self._move(self._shown)


@contextmanager
def sampling_progress(
    out: Output, text: str, total: int, batch_size: int, previews: Previews | None = None
) -> Iterator[Counted]:
    """A progress bar for sampling, on a terminal only; `previews` see every step and are closed."""
    try:
        with out.progress(text, total=total) as move:
            yield Counted(move, total, batch_size, previews)
    finally:
        if previews is not None:
            previews.close()
