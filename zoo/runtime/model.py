"""`load` and `LoadedModel`: from a reference to artifacts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.cards import Card, File, Variant
from zoo.errors import InvalidInput, WeightsError, ZooError
from zoo.io.artifacts import Artifact, Provenance
from zoo.io.request import Request
from zoo.registry import Architecture, Sampler, resolve
from zoo.runtime import devices, memory
from zoo.runtime.capabilities import Likelihood
from zoo.runtime.components import Components, check_components, check_files, is_used
from zoo.runtime.conditioning import class_id
from zoo.runtime.loading import (
    assign,
    convert_tensors,
    mapped_bytes,
    needs_conversion,
    read_tensors,
)
from zoo.runtime.memory import MemoryNeed
from zoo.runtime.memory_plan import Placement, Wish, fitting_place, need_of_loaded, place
from zoo.runtime.prepare import (
    check_kind,
    class_count,
    find_sampler,
    planned,
    sampler_failed,
    sampler_options,
)
from zoo.runtime.sampling import Batch, Item, OnStep, Plan, Unwatched, batches
from zoo.runtime.texts import MOST_TEXTS
from zoo.runtime.threads import cpu_threads, suitable_threads
from zoo.session import Session, default_session
from zoo.store.locate import gone, identity, locate
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.runtime.noise import NoiseSource


@dataclass(frozen=True)
class FinishedRun:
    """What `sample_finished` observers receive."""

    reference: str
    request: Request
    artifacts: tuple[Artifact, ...]
    seconds: float


@dataclass(frozen=True)
class LoadedModel:
    """A variant on a device, ready to sample.

    `components` holds its modules by role, those beside the model made when they are first used. `mapped` are
    the bytes of the model's weights that lie in their file, read when they are needed.
    """

    card: Card
    variant: Variant
    architecture: Architecture
    components: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    weights: str
    session: Session = field(repr=False)
    threads: int | None = None  #: CPU threads to run with; None is chosen for each batch
    mapped: int = 0

    @property
    def reference(self) -> str:
        """`method:variant`."""
        return f"{self.card.method}:{self.variant.name}"

    @property
    def model(self) -> Any:
        """The component of role "model"."""
        return self.components["model"]

    @property
    def class_count(self) -> int:
        """Number of classes; 0 for a model without."""
        return class_count(self.variant)

    def sampler(self, name: str | None = None, task: str | None = None) -> Sampler:
        """A sampler by name or for a task, else the card's; raises `InvalidInput` as `find_sampler` does."""
        return find_sampler(self.session, self.card, self.variant, self.architecture, name, task)

    def sampler_of(self, request: Request) -> Sampler:
        """The sampler that a request asks for, by name or by task, else the card's."""
        return self.sampler(request.sampler, request.task)

    def options(self, request: Request) -> Any:
        """The sampler's options for a request: card's defaults, then the request's own."""
        return sampler_options(self.sampler_of(request), self.variant, request)

    def plan(self, request: Request) -> Plan:
        """Every sample that a request asks for; raises `InvalidInput` before anything is computed."""
        return planned(self.card, self.variant, self.sampler_of(request), request)

    def batch_size(self, request: Request) -> int:
        """How many samples of a request are drawn at once; raises `DoesNotFit` when one is too many."""
        return self.memory_need(request).batch_size

    def memory_need(self, request: Request) -> MemoryNeed:
        """What a request will take, stage by stage, from now on; raises `DoesNotFit`."""
        return need_of_loaded(self, request)

    def expect(self, texts: Iterable[str]) -> None:
        """Texts that will be asked for later, so that the text encoder is loaded once for all of them."""
        if isinstance(self.components, Components):
            self.components.expect(texts)

    def sample(self, request: Request | None = None, on_step: OnStep | None = None) -> Iterator[Artifact]:
        """Draw samples; yields artifacts with their provenance, batch by batch, as they finish.

        Input errors are raised here, before the first artifact is asked for. When memory runs out, the batch
        is halved and drawn again: batch size never changes a sample.
        """
        request = request or Request()
        items, options = self.plan(request), self.options(request)
        return self._run(request, items, options, on_step or Unwatched())

    def threads_for(self, batch_size: int) -> int:
        """CPU threads that a batch runs with."""
        return self.threads or suitable_threads(self.model, batch_size, self.device)

    def draw(
        self, batch: Batch, options: Any, noise: NoiseSource, on_step: OnStep, sampler: str | None = None
    ) -> list[Artifact]:
        """Run the sampler once on explicit noise: what `sample` does for each batch."""
        entry = self.sampler(sampler)
        with cpu_threads(self.threads_for(len(batch))):
            return list(resolve(entry.sample, entry.owner)(self, batch, options, noise, on_step))

    def log_prob(self, images: Tensor, classes: Sequence[str | int] | None = None) -> Tensor:
        """log p of images [n, c, h, w] in [-1, 1], in nats for the whole image: [n].

        The model must offer `likelihood`.
        """
        model = self._likelihood()
        labels = None
        if classes is not None:
            ids = [class_id(value, self.variant.classes, self.class_count) for value in classes]
            labels = torch.tensor(ids, device=self.device)
        with torch.no_grad(), cpu_threads(self.threads_for(len(images))):
            return model.log_prob(images.to(self.device), labels).cpu()

    def bits_per_dim(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Bits per dimension [n] of 8-bit images [n, c, h, w] under dequantisation noise in [0, 1)."""
        model = self._likelihood()
        with torch.no_grad(), cpu_threads(self.threads_for(len(images))):
            return model.bits_per_dim(images.to(self.device), uniform.to(self.device)).cpu()

    def _likelihood(self) -> Likelihood:
        if not isinstance(self.model, Likelihood):
            raise InvalidInput(f"{self.reference} has no likelihood: its architecture does not offer it")
        return self.model

    def _run(self, request: Request, items: Plan, options: Any, on_step: OnStep) -> Iterator[Artifact]:
        started, finished = time.perf_counter(), []
        # Only observers need all artifacts together; without any, a run of millions keeps one batch.
        observed = self.session.plugins.implements("sample_finished")
        for batch in batches(items, self.batch_size(request), request):
            self._expect_texts(items, batch)
            for artifact in self._draw_halving(batch, options, request, on_step):
                if observed:
                    finished.append(artifact)
                yield artifact
        run = FinishedRun(self.reference, request, tuple(finished), time.perf_counter() - started)
        for _ in self.session.plugins.each("sample_finished", run=run):
            pass

    def _expect_texts(self, items: Plan, batch: Batch) -> None:
        """Tell of the texts of this batch and the next ones."""
        if not isinstance(self.components, Components) or not self.components.reads_texts:
            return
        first = batch.items[0].index
        coming = items[first : first + max(len(batch), MOST_TEXTS)]
        self.expect(text for item in coming for text in item.texts)

    def _draw_halving(
        self, batch: Batch, options: Any, request: Request, on_step: OnStep
    ) -> Iterator[Artifact]:
        try:
            drawn = self._draw_with_provenance(batch, options, request, on_step)
        except ZooError:
            raise
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise sampler_failed(self.sampler_of(request), error) from error
            if len(batch) == 1:
                raise memory.one_does_not_fit(self.reference, self.device) from error
        else:
            yield from drawn
            return
        middle = len(batch) // 2
        for half in (batch.items[:middle], batch.items[middle:]):
            yield from self._draw_halving(dataclasses.replace(batch, items=half), options, request, on_step)

    def _draw_with_provenance(
        self, batch: Batch, options: Any, request: Request, on_step: OnStep
    ) -> list[Artifact]:
        sampler = self.sampler_of(request)
        drawn = self.draw(batch, options, batch.noise(), on_step, sampler.name)
        check_kind(sampler, drawn)
        made = (self._provenance(item, options, request) for item in batch.items)
        return [
            dataclasses.replace(artifact, provenance=provenance)  # type: ignore[type-var]
            for artifact, provenance in zip(drawn, made, strict=True)
        ]

    def _provenance(self, item: Item, options: Any, request: Request) -> Provenance:
        named = item.class_id is not None and item.class_id < len(self.variant.classes)
        return Provenance(
            reference=self.reference,
            weights=self.weights,
            revision=None,
            prompt=item.prompt,
            negative=item.negative,
            part_prompts=item.part_prompts,
            class_name=self.variant.classes[item.class_id] if named and item.class_id is not None else None,
            class_id=item.class_id,
            seed=item.seed,
            images={role: image.facts for role, image in item.images.items()},
            sampler=self.sampler_of(request).name,
            options=dataclasses.asdict(options),
            size=request.size,
            dtype=devices.dtype_name(self.dtype),
            device=str(self.device),
            zoo_version=__version__,
        )


def load(
    reference: str,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | Path | None = None,
    sampler: str | None = None,
    session: Session | None = None,
    threads: int | None = None,
    task: str | None = None,
    request: Request | None = None,
) -> LoadedModel:
    """Load a variant: `load("tarflow:shapes")`.

    `weights` is a file of your own (safetensors, or a checkpoint that the card's converter reads) or a folder
    with one `<role>.safetensors` for each component. The `sampler`, or that of the `task`, is checked against
    the architecture before anything is loaded. With a `request`, whose sampler or task it then is, that is
    checked too, and memory for all that it takes, else for the weights. `threads` sets the CPU threads, which
    else are chosen for each batch.

    Raises `NotFound`, `NotPulled`, `WeightsError`, `PluginError`, `DoesNotFit` or `InvalidInput`.
    """
    session = session or default_session()
    card, variant = session.resolve(reference)
    architecture = session.architecture(card, variant)
    asked = request or Request(sampler=sampler, task=task)
    entry = find_sampler(session, card, variant, architecture, asked.sampler, asked.task)
    options = sampler_options(entry, variant, asked)
    if request is not None:
        planned(card, variant, entry, request)
    check_components(session, card, variant, options)
    given = Path(weights) if weights is not None else None
    paths = locate(card, variant, given)
    check_files(session, card, variant, paths, options)
    wish = Wish(session, card, variant, asked, options, paths, device, dtype)
    placed = _weights_place(wish) if request is None else fitting_place(wish)[0]
    module = placed.module
    tensors = _located_tensors(session, card, variant, module, paths["model"], given is None)
    mapped = mapped_bytes(tensors, placed.device, placed.dtype)
    with cpu_threads(threads or suitable_threads(module, 1, placed.device)):
        assign(module, tensors, placed.device, placed.dtype, str(paths["model"]))
    source = str(paths["model"])
    if given is None:
        source = identity(card, variant, paths["model"]) or source
    return LoadedModel(
        card,
        variant,
        architecture,
        Components(module, placed.parts, placed.room),
        placed.device,
        placed.dtype,
        source,
        session,
        threads,
        mapped,
    )


def _weights_place(wish: Wish) -> Placement:
    """Where a variant is going to run, whatever is asked of it.

    Raises `DoesNotFit` where the weights of the model, or of a component that is not optional, do not fit.
    """
    placed = place(wish)
    memory.check_weights_fit(placed.module, wish.reference, placed.device, placed.dtype)
    for part in placed.parts:
        if is_used(part.role, part.component, wish.options) and not part.component.optional:
            part.check_fits()
    return placed


def _located_tensors(
    session: Session, card: Card, variant: Variant, module: nn.Module, path: Path, located: bool
) -> dict[str, Tensor]:
    try:
        return _tensors(session, card, variant, module, path)
    except WeightsError as error:
        if located and not path.exists():
            # Removed by another process between the look at the manifest and the opening.
            raise gone(f"{card.method}:{variant.name}", path) from error
        raise


def _tensors(
    session: Session, card: Card, variant: Variant, module: nn.Module, path: Path
) -> dict[str, Tensor]:
    file = _model_file(variant) if variant.files else None
    tensors = read_tensors(path, file.entry if file else None)
    converter = file.converter if file else variant.converter
    if converter is None or not needs_conversion(module, tensors):
        return tensors
    entry = session.converter(converter, f"{card.method}:{variant.name}")
    return convert_tensors(entry, tensors, variant.config, str(path))


def _model_file(variant: Variant) -> File:
    return next((file for file in variant.files if file.role == "model"), variant.files[0])


def sample(
    reference: str | None = None,
    prompt: str | Sequence[str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | Path | None = None,
    **request: Any,
) -> list[Artifact]:
    """Load and sample in one call: `zoo.sample(prompt="a red circle")`.

    `reference` defaults to the configured model, else the built-in default; the other arguments are those of
    `Request` (`num`, `seed`, `classes`, `images`, `task`, `guidance`, `options`, ...).
    """
    from zoo.defaults import default_reference

    prompts = () if prompt is None else prompt
    asked = Request(prompts=prompts, **request)
    reference = reference or default_reference(
        bool(asked.prompts), bool(asked.part_prompts), bool(asked.task or asked.images)
    )
    loaded = load(reference, device, dtype, weights, request=asked)
    return list(loaded.sample(asked))
