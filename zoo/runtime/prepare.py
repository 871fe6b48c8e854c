"""Checking a request against a variant before anything is loaded: sampler, options, prompts and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.cards import Card, Variant
from zoo.errors import InvalidInput, PluginError
from zoo.io.kinds import artifact_class
from zoo.io.request import Request
from zoo.plugins import describe
from zoo.registry import Architecture, Sampler, resolve
from zoo.runtime.components import check_components
from zoo.runtime.options import build_options
from zoo.runtime.sampling import Plan, plan
from zoo.session import Session
from zoo.shapes.prompts import caption_of, check_parts, parts_of

if TYPE_CHECKING:
    from zoo.io.artifacts import Artifact


@dataclass(frozen=True)
class Prepared:
    """A request that the variant can answer, and what class its artifacts have. Nothing is loaded yet."""

    card: Card
    variant: Variant
    sampler: Sampler
    options: Any
    items: Plan
    makes: type[Artifact]

    @property
    def reference(self) -> str:
        """`method:variant`."""
        return f"{self.card.method}:{self.variant.name}"


def prepare(session: Session, reference: str, request: Request) -> Prepared:
    """Resolve everything that a request names.

    Imports the method's plugin and reads no weights. Raises `NotFound`, `PluginError` or `InvalidInput`.
    """
    card, variant = session.resolve(reference)
    architecture = session.architecture(card, variant)
    sampler = find_sampler(session, card, variant, architecture, request.sampler)
    options = sampler_options(sampler, variant, request)
    items = planned(card, variant, sampler, request)
    check_components(session, card, variant)
    return Prepared(card, variant, sampler, options, items, artifact_class(sampler.makes))


def find_sampler(
    session: Session, card: Card, variant: Variant, architecture: Architecture, name: str | None = None
) -> Sampler:
    """The sampler to use; raises `InvalidInput` when the architecture does not offer what it needs."""
    wanted = name or variant.sampler.get("name")
    if wanted is None:
        raise InvalidInput(f"{card.method}:{variant.name} names no sampler", "Choose one with --sampler.")
    sampler: Sampler = session.sampler(str(wanted), f"{card.method}:{variant.name}")
    lacking = [need for need in sampler.needs if need not in architecture.offers]
    if lacking:
        raise InvalidInput(
            f"sampler '{sampler.name}' needs {', '.join(lacking)}, "
            f"which architecture '{architecture.name}' does not offer",
            f"It offers: {', '.join(architecture.offers) or 'nothing'}",
        )
    return sampler


def sampler_options(sampler: Sampler, variant: Variant, request: Request) -> Any:
    """The sampler's options: the card's defaults where it is the card's sampler, then the request's own."""
    defaults: Mapping[str, Any] = {}
    if sampler.name == variant.sampler.get("name"):
        defaults = {name: value for name, value in variant.sampler.items() if name != "name"}
    short = {"steps": request.steps, "guidance": request.guidance}
    given = {name: value for name, value in short.items() if value is not None}
    kind = resolve(sampler.options, sampler.owner)
    return build_options(kind, sampler.name, defaults, given, request.options)


def sampler_failed(sampler: Sampler, error: Exception) -> PluginError:
    """The error for a sampler that raised something of its own."""
    return PluginError(
        f"sampler '{sampler.name}' of plugin '{sampler.owner}' failed: {describe(error)}",
        "ZOO_DEBUG=1 shows the traceback.",
    )


def check_kind(sampler: Sampler, artifacts: Iterable[Artifact]) -> None:
    """Raise `PluginError` unless a sampler made what it says that it makes."""
    expected = artifact_class(sampler.makes)
    wrong = next((artifact for artifact in artifacts if not isinstance(artifact, expected)), None)
    if wrong is not None:
        raise PluginError(
            f"sampler '{sampler.name}' of plugin '{sampler.owner}' made a {type(wrong).__name__}, and it is "
            f'registered with makes="{sampler.makes}"'
        )


def class_count(variant: Variant) -> int:
    """Number of classes; 0 for a model without."""
    return int(variant.config.get("num_classes", 0)) or len(variant.classes)


def takes_text(card: Card) -> bool:
    """Whether a model is conditioned on text: any of its tasks is text to something."""
    return any(task.startswith("text-to-") for task in card.tasks)


def planned(card: Card, variant: Variant, sampler: Sampler, request: Request) -> Plan:
    """Every sample that a request asks of a sampler.

    Raises `InvalidInput` for a condition that the model does not know, and for part prompts that the sampler
    does not read. A model of the shapes world whose sampler reads part prompts gets those of the prompt where
    the request gives none.
    """
    of_shapes = variant.captions == "shapes"
    derive = parts_of if of_shapes and sampler.part_prompts else None
    items = plan(request, variant.classes, class_count(variant), takes_text(card), derive_parts=derive)
    if request.part_prompts and not sampler.part_prompts:
        raise InvalidInput(
            f"sampler '{sampler.name}' reads no part prompts",
            "Leave out --layer-prompt, or choose a model that reads a prompt for each part.",
        )
    if of_shapes:
        for text in dict.fromkeys([*request.prompts, *request.negatives]):
            caption_of(text)
        for parts in dict.fromkeys(request.part_prompts):
            check_parts(parts)
    return items
