"""What `zoo sample` tells about samples: conditions in words, how they were decoded, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.cards import Variant
    from zoo.io.artifacts import Provenance
    from zoo.runtime.reports import Decoding
    from zoo.runtime.sampling import Item
    from zoo_cli.output import Output


def condition(made: Provenance) -> str | None:
    """What a sample shows, for its file's name: its prompt or class, its part prompts, or its pictures."""
    pictures = (image["path"] for image in made.images.values())
    return _words(made.prompt, made.class_name, made.class_id, made.part_prompts, pictures)


def item_condition(item: Item, variant: Variant, pictures: Iterable[str | None] | None = None) -> str | None:
    """What a sample is going to show, in the words of `condition`.

    pictures: the paths of its pictures; by default of those that the item holds.
    """
    if pictures is None:
        pictures = (image.source for image in item.images.values())
    name = class_name(item.class_id, variant)
    return _words(item.prompt, name, item.class_id, item.part_prompts, pictures)


def class_name(class_id: int | None, variant: Variant) -> str | None:
    """The name of a class; None where it has none."""
    named = class_id is not None and class_id < len(variant.classes)
    return variant.classes[class_id] if named and class_id is not None else None


def class_of(made: Provenance) -> str | int | None:
    """A sample's class by name, else by number."""
    return made.class_name if made.class_name is not None else made.class_id


def _words(
    prompt: str | None,
    name: str | None,
    number: int | None,
    parts: Sequence[str],
    pictures: Iterable[str | None],
) -> str | None:
    if prompt is not None:
        return prompt or ", ".join(filter(None, parts))
    if name is not None:
        return name
    if number is not None:
        return f"class {number}"
    return " ".join(Path(path).stem for path in pictures if path) or None


def images_entry(images: Mapping[str, Mapping[str, str | None]]) -> dict[str, Any]:
    """What --json and manifests tell about a sample's pictures by role; nothing where it has none."""
    return {"images": {role: dict(image) for role, image in images.items()}} if images else {}


def keep_decodings(findings: list[object], kept: list[Decoding], out: Output) -> None:
    """Move what samplers reported about decoding to `kept`, and tell it in detail."""
    from zoo.runtime.reports import Decoding

    for finding in findings:
        if isinstance(finding, Decoding):
            kept.append(finding)
            out.detail(_decoding_text(finding))
    findings.clear()


def decoding_entry(made: Decoding) -> dict[str, Any]:
    """How one batch was decoded, for --json."""
    totals = {"passes": made.passes, "tokens": made.tokens, "residual": made.residual}
    return {**asdict(made), **totals}


def _decoding_text(made: Decoding) -> str:
    graphs = ", CUDA graphs" if made.graphs else ""
    text = f"decoding: {made.decode}, {made.layout} {made.dtype} weights, {made.rows} rows{graphs}"
    if made.residual is None:
        return f"{text}, {made.passes} passes"
    gave_way = f", {made.gave_way} of {len(made.blocks)} blocks finished token by token"
    return (
        f"{text}, {made.passes} passes for {made.tokens} tokens, "
        f"error estimate {made.residual:.1e}{gave_way if made.gave_way else ''}"
    )


def tell_parts(items: Sequence[Item], out: Output) -> None:
    """Tell in detail what the parts of samples show, which a sampler may have worked out of the prompt."""
    if not out.verbose:
        return
    for prompt, parts in dict.fromkeys((item.prompt, item.part_prompts) for item in items):
        if parts:
            quoted = ", ".join(f"'{part}'" for part in parts)
            out.detail(f"parts of '{prompt or ''}': {quoted}")


def samples(count: int) -> str:
    """ "1 sample", "2 samples"."""
    return f"{count} {'sample' if count == 1 else 'samples'}"
