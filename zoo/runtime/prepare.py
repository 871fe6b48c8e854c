"""Checking a request against a variant before anything is loaded: sampler, options, prompts and classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.cards import Card, Variant
from zoo.errors import InvalidInput, PluginError, did_you_mean
from zoo.io.kinds import artifact_class
from zoo.io.request import Request
from zoo.plugins import describe
from zoo.registry import Architecture, Sampler, resolve
from zoo.runtime.components import check_components
from zoo.runtime.options import build_options
from zoo.runtime.sampling import Plan, plan
from zoo.session import Session
from zoo.shapes.asking import check_prompt
from zoo.shapes.prompts import check_parts, parts_of

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
    sampler = find_sampler(session, card, variant, architecture, request.sampler, request.task)
    options = sampler_options(sampler, variant, request)
    items = planned(card, variant, sampler, request)
    check_components(session, card, variant, options)
    return Prepared(card, variant, sampler, options, items, artifact_class(sampler.makes))


def find_sampler(
    session: Session,
    card: Card,
    variant: Variant,
    architecture: Architecture,
    name: str | None = None,
    task: str | None = None,
) -> Sampler:
    """The sampler of a name or of a task, else the card's.

    A task is a key of `variant.tasks`, or one that a sampler of the variant is registered for. Raises
    `InvalidInput` for an unknown one, for both a name and a task, and when the architecture does not offer
    what the sampler needs.
    """
    reference = f"{card.method}:{variant.name}"
    if name is not None and task is not None:
        raise InvalidInput(
            f"both the sampler '{name}' and the task '{task}' were given, expected one of them",
            "Leave out --sampler or --task.",
        )
    wanted = name or (
        variant.sampler.get("name") if task is None else _sampler_for(session, card, variant, task)
    )
    if wanted is None:
        raise InvalidInput(f"{reference} names no sampler", "Choose one with --sampler.")
    sampler: Sampler = session.sampler(str(wanted), reference)
    lacking = [need for need in sampler.needs if need not in architecture.offers]
    if lacking:
        raise InvalidInput(
            f"sampler '{sampler.name}' needs {', '.join(lacking)}, "
            f"which architecture '{architecture.name}' does not offer",
            f"It offers: {', '.join(architecture.offers) or 'nothing'}",
        )
    return sampler


def _sampler_for(session: Session, card: Card, variant: Variant, task: str) -> str:
    """The name of the sampler for a task; raises `InvalidInput` that lists the tasks that there are."""
    if task in variant.tasks:
        return str(variant.tasks[task]["name"])
    reference = f"{card.method}:{variant.name}"
    samplers = [session.sampler(str(table.get("name")), reference) for table in variant.samplers]
    found = next((sampler for sampler in samplers if task in sampler.tasks), None)
    if found is not None:
        return str(found.name)
    known = list(dict.fromkeys([*variant.tasks, *(name for sampler in samplers for name in sampler.tasks)]))
    hint = f"{did_you_mean(task, known)} It has: {', '.join(known) or 'none'}".lstrip()
    raise InvalidInput(f"{reference} has no task '{task}'", hint)


def sampler_options(sampler: Sampler, variant: Variant, request: Request) -> Any:
    """The sampler's options: the card's defaults where it names the sampler, then the request's own.

    Where several tables of the card name it, the defaults are those of the task that was asked for, else of
    the first.
    """
    tables = [table for table in variant.samplers if table.get("name") == sampler.name]
    asked = variant.tasks.get(request.task or "")
    table = asked if asked in tables else next(iter(tables), {})
    defaults = {name: value for name, value in table.items() if name != "name"}
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

    Raises `InvalidInput` for a condition that the model does not know, for pictures and a prompt that the
    sampler needs and the request lacks, and for pictures, prompts and part prompts that the sampler does not
    read. Prompts of a model of the shapes world have to follow the grammar of the sampler's tasks, and one
    whose sampler reads part prompts gets those of the prompt where the request gives none.
    """
    _check_prompts(sampler, request)
    _check_images(sampler, variant, request)
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
            check_prompt(text, sampler.tasks or card.tasks)
        for parts in dict.fromkeys(request.part_prompts):
            check_parts(parts)
    return items


def _check_prompts(sampler: Sampler, request: Request) -> None:
    if sampler.prompt == "none" and (request.prompts or request.negatives):
        what = "prompt" if request.prompts else "negative prompt"
        hint = "Leave out --prompt." if request.prompts else "Leave out --negative."
        raise InvalidInput(f"sampler '{sampler.name}' reads no {what}", hint)
    if sampler.prompt == "required" and not all(text.strip() for text in request.prompts or ("",)):
        raise InvalidInput(f"sampler '{sampler.name}' needs a prompt", "Say it with --prompt TEXT.")


def _check_images(sampler: Sampler, variant: Variant, request: Request) -> None:
    read = [*sampler.images, *sampler.optional_images]
    for role in request.images:
        if role not in read:
            named = "" if role == "image" and not read else f" '{role}'"
            hint = f"It reads: {', '.join(read)}" if read else "Leave out --image."
            others = [task for task, table in variant.tasks.items() if table.get("name") != sampler.name]
            if not read and others and request.task is None and request.sampler is None:
                hint = f"Leave out --image, or say with --task what to do: {', '.join(others)}."
            raise InvalidInput(f"sampler '{sampler.name}' reads no picture{named}", hint)
    for role in sampler.images:
        if role not in request.images:
            usual = role == "image"
            raise InvalidInput(
                f"sampler '{sampler.name}' needs a picture" + ("" if usual else f" '{role}'"),
                f"Give it with --image {'' if usual else f'{role}='}FILE.",
            )
