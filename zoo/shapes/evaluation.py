"""Scoring a model of the shapes world: does each sample show what its prompt says?

Every combination of colour and shape is sampled equally often and judged by `zoo.shapes.judging`. Models with
a likelihood are also scored in bits per dimension on ground-truth pictures.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.cards import Card, Variant
from zoo.errors import InvalidInput, ZooError
from zoo.io.artifacts import Image
from zoo.io.request import Request
from zoo.runtime import devices
from zoo.runtime.model import LoadedModel
from zoo.runtime.noise import BatchNoise
from zoo.runtime.options import changed_options
from zoo.runtime.sampling import OnStep
from zoo.runtime.threads import cpu_threads
from zoo.session import Session
from zoo.shapes.batches import single_objects
from zoo.shapes.captions import Mention
from zoo.shapes.judging import agrees
from zoo.shapes.scene import CLASSES

#: Ground-truth pictures whose bits per dimension are computed at once.
_LIKELIHOOD_BATCH = 64


@dataclass(frozen=True)
class ClassScore:
    """One combination of colour and shape. `held_out`: it was left out of training."""

    name: str
    prompt: str
    held_out: bool
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of samples that agree with the prompt."""
        return self.correct / self.total


@dataclass(frozen=True)
class Evaluation:
    """How well a model draws what is asked for, and everything needed to measure it again.

    `accuracy` is over all samples, `seen` and `held_out` over the combinations that training showed or left
    out (None where there are none). `bits_per_dim` is the mean over `renders` ground-truth pictures, None for
    models without a likelihood. `failures` are the (prompt, seed) of samples that disagree.
    """

    reference: str
    weights: str
    sampler: str
    options: Mapping[str, Any]
    changed: Mapping[str, Any]  #: the options that are not at the sampler's own defaults
    device: str
    dtype: str
    seed: int
    per_class: int
    accuracy: float
    seen: float | None
    held_out: float | None
    classes: tuple[ClassScore, ...]
    failures: tuple[tuple[str, int], ...]
    seconds_per_sample: float
    bits_per_dim: float | None
    renders: int
    images: tuple[Image, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; the pictures are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "images"}
        values["options"], values["changed"] = dict(self.options), dict(self.changed)
        values["classes"] = [{**dataclasses.asdict(c), "accuracy": c.accuracy} for c in self.classes]
        values["failures"] = [{"prompt": prompt, "seed": seed} for prompt, seed in self.failures]
        return values


def check_evaluable(session: Session, reference: str) -> tuple[Card, Variant, frozenset[str]]:
    """Card, variant and held-out combinations of a model of the shapes world; else `InvalidInput`."""
    card, variant = session.resolve(reference)
    by_class = bool(variant.classes) and set(variant.classes) <= set(CLASSES)
    by_text = not variant.classes and "text-to-image" in card.tasks
    if variant.recipe is None or not (by_class or by_text):
        raise InvalidInput(
            f"{card.method}:{variant.name} is not a model of the shapes world, all that can be judged here",
            "zoo list shows the built-in variants.",
        )
    held_out = getattr(session.recipe(card, variant), "held_out", ())
    return card, variant, frozenset(held_out)


def evaluated_classes(variant: Variant) -> tuple[str, ...]:
    """The combinations that a variant is asked for: its own classes, or all that there are."""
    return tuple(name for name in CLASSES if not variant.classes or name in variant.classes)


def evaluation_request(variant: Variant, per_class: int, seed: int, how: Request | None = None) -> Request:
    """The request whose samples are judged: "a red circle" and so on, `per_class` of each.

    `how` gives sampler, steps, guidance, options and batch size; what else it asks for is replaced.
    """
    prompts = [prompt_of(name) for name in evaluated_classes(variant)]
    return dataclasses.replace(
        how or Request(), prompts=prompts, classes=(), num=per_class, seed=seed, size=None
    )


def prompt_of(name: str) -> str:
    """The caption of a combination: "orange ring" -> "an orange ring"."""
    colour, shape = name.split()
    return str(Mention(shape, colour))


def evaluate(
    loaded: LoadedModel,
    per_class: int = 10,
    seed: int = 0,
    how: Request | None = None,
    renders: int = 256,
    keep_images: bool = False,
    on_step: OnStep | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> Evaluation:
    """Sample every combination `per_class` times and judge the pictures.

    `how` gives the sampler's settings (see `evaluation_request`); `on_sample` receives the number of pictures
    judged so far. Raises `InvalidInput` for a model that is not of the shapes world.
    """
    _, variant, held_out = check_evaluable(loaded.session, loaded.reference)
    classes = evaluated_classes(variant)
    request = evaluation_request(variant, per_class, seed, how)
    timed = _Timed(loaded.sample(request, on_step))
    verdicts: list[bool] = []
    images: list[Image] = []
    for artifact in timed:
        name = classes[len(verdicts) // per_class]
        verdicts.append(_agrees(artifact, prompt_of(name)))
        size = artifact.pixels.shape[-1]
        if keep_images:
            images.append(artifact)
        if on_sample is not None:
            on_sample(len(verdicts))
    scores = _scores(classes, verdicts, per_class, held_out)
    bits = _bits_per_dim(loaded, size, seed, renders)
    sampler, options = loaded.sampler(request.sampler), loaded.options(request)
    return Evaluation(
        reference=loaded.reference,
        weights=loaded.weights,
        sampler=sampler.name,
        options=dataclasses.asdict(options),
        changed=changed_options(options),
        device=str(loaded.device),
        dtype=devices.dtype_name(loaded.dtype),
        seed=seed,
        per_class=per_class,
        accuracy=sum(verdicts) / len(verdicts),
        seen=_accuracy([score for score in scores if not score.held_out]),
        held_out=_accuracy([score for score in scores if score.held_out]),
        classes=scores,
        failures=tuple(
            (prompt_of(classes[i // per_class]), seed + i) for i, good in enumerate(verdicts) if not good
        ),
        seconds_per_sample=timed.seconds / len(verdicts),
        bits_per_dim=bits,
        renders=0 if bits is None else renders,
        images=tuple(images),
    )


class _Timed:
    """Iterates over pictures and counts the time that drawing them takes, judging left out."""

    def __init__(self, artifacts: Iterator[Any]) -> None:
        self._artifacts = artifacts
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Image]:
        while True:
            started = time.perf_counter()
            artifact = next(self._artifacts, None)
            self.seconds += time.perf_counter() - started
            if artifact is None:
                return
            if not isinstance(artifact, Image):
                raise ZooError(f"eval judges images, and the sampler made: {artifact.kind}")
            yield artifact


def _agrees(image: Image, prompt: str) -> bool:
    try:
        # The judge's operations are far too small to share between threads.
        with cpu_threads(1):
            return agrees(image.pixels, prompt)
    except ValueError as error:
        # The judge sees square RGB pictures from a certain size on; a model that makes others has no score.
        raise InvalidInput(f"the pictures of this model cannot be judged: {error}") from error


def _scores(
    classes: Sequence[str], verdicts: Sequence[bool], per_class: int, held_out: frozenset[str]
) -> tuple[ClassScore, ...]:
    correct = [sum(verdicts[i * per_class : (i + 1) * per_class]) for i in range(len(classes))]
    return tuple(
        ClassScore(name, prompt_of(name), name in held_out, good, per_class)
        for name, good in zip(classes, correct, strict=True)
    )


def _accuracy(scores: Sequence[ClassScore]) -> float | None:
    total = sum(score.total for score in scores)
    return sum(score.correct for score in scores) / total if total else None


def _bits_per_dim(loaded: LoadedModel, size: int, seed: int, renders: int) -> float | None:
    if "likelihood" not in loaded.architecture.offers or renders < 1:
        return None
    noise = BatchNoise("evaluate", seed)
    pictures, _ = single_objects(noise, renders, size)
    images = to_8_bit(pictures)
    uniform = noise.uniform("dequantise", images.shape)
    chunks = (torch.split(tensor, _LIKELIHOOD_BATCH) for tensor in (images, uniform))
    bits = torch.cat([loaded.bits_per_dim(*pair) for pair in zip(*chunks, strict=True)]).double()
    mean = float(bits.mean())
    return mean if math.isfinite(mean) else None


def to_8_bit(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as whole numbers 0..255, in float32."""
    return ((pictures + 1.0) * 127.5).round().clamp(0.0, 255.0)
