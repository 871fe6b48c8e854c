"""Provenance back into requests: what was asked for, so that it can be asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import InvalidInput
from zoo.io.artifacts import Provenance
from zoo.io.inputs import InputImage
from zoo.io.request import Request

#: What to do about a picture that cannot be read back, by its role; for others it is given by --image.
_INSTEAD = {"layers": "zoo edit FILE --layer NUMBER draws a layer of a picture anew."}


@dataclass(frozen=True)
class Changes:
    """What a replay does differently. `seed` is that of the first sample; the others keep their distance.

    `images` are pictures to take, by role, instead of those that the samples were made from. The very same
    one, given because it has moved, makes no difference: see `differ_from`.
    """

    seed: int | None = None
    guidance: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, InputImage] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.seed is not None or self.guidance is not None or bool(self.options or self.images)

    def differ_from(self, provenances: Sequence[Provenance]) -> bool:
        """Whether these samples come out differently, as far as what is asked for tells."""
        digests = {role: image.digest for role, image in self.images.items()}
        others = any(
            made.images.get(role, {}).get("sha256") != digest
            for made in provenances
            for role, digest in digests.items()
        )
        return others or self.seed is not None or self.guidance is not None or bool(self.options)


@dataclass(frozen=True)
class Replay:
    """Samples of one file that are drawn together: `made` tells how they were made, in order."""

    made: tuple[Provenance, ...]
    request: Request

    @property
    def first(self) -> Provenance:
        """The first sample's provenance; reference, sampler, dtype and device are those of all."""
        return self.made[0]


def replays(
    provenances: Sequence[Provenance],
    changes: Changes | None = None,
    batch_size: int | None = None,
    beside: Path | None = None,
) -> list[Replay]:
    """The requests that draw these samples again, in order; as few as possible.

    beside: the folder of the file that is replayed. Pictures that the samples were made from are read from
    their paths as they were given, else relative to it. Raises `InvalidInput` for one that is gone, has
    changed or came from a program, unless `changes` has one for its role.
    """
    changes = changes or Changes()
    shift = 0 if changes.seed is None else changes.seed - provenances[0].seed
    groups: list[list[Provenance]] = []
    for provenance in provenances:
        if groups and _continues(groups[-1], provenance):
            groups[-1].append(provenance)
        else:
            groups.append([provenance])
    pictures = _Pictures(changes.images, beside)
    return [Replay(tuple(group), _request(group, changes, pictures, shift, batch_size)) for group in groups]


class _Pictures:
    """The pictures that samples were made from, each read once."""

    def __init__(self, given: Mapping[str, InputImage], beside: Path | None) -> None:
        self._given = given
        self._beside = beside
        self._read: dict[tuple[str | None, str], InputImage] = {}

    def of(self, group: Sequence[Provenance]) -> dict[str, list[InputImage]]:
        """The pictures of samples that are drawn together, by role."""
        roles = dict.fromkeys([*group[0].images, *self._given])
        return {role: [self._one(made, role) for made in group] for role in roles}

    def _one(self, made: Provenance, role: str) -> InputImage:
        if role in self._given:
            return self._given[role]
        path, digest = made.images[role]["path"], str(made.images[role]["sha256"])
        if (path, digest) not in self._read:
            self._read[path, digest] = self._found(role, path, digest)
        return self._read[path, digest]

    def _found(self, role: str, path: str | None, digest: str) -> InputImage:
        hint = _INSTEAD.get(role, f"Give it with --image {'' if role == 'image' else f'{role}='}FILE.")
        if path is None:
            raise InvalidInput(f"it was made from a picture, '{role}', that is in no file", hint)
        there = [place for place in self._places(path) if place.is_file()]
        if not there:
            raise InvalidInput(f"{path}, the picture that it was made from, is gone", hint)
        for place in there:
            with suppress(InvalidInput):  # What is no picture any more is another one too.
                image = InputImage(InputImage.read(place).pixels, path)
                if image.digest == digest:
                    return image
        raise InvalidInput(f"{path} is not the picture any more that it was made from", hint)

    def _places(self, path: str) -> list[Path]:
        return [Path(path)] if self._beside is None else [Path(path), self._beside / path]


def _continues(group: list[Provenance], next_one: Provenance) -> bool:
    last = group[-1]
    same = ("reference", "weights", "sampler", "options", "size", "dtype", "device")
    return (
        all(getattr(last, name) == getattr(next_one, name) for name in same)
        and next_one.seed == last.seed + 1
        and _kind(next_one) == _kind(last)
        and (next_one.negative is None) == (last.negative is None)
        and set(next_one.images) == set(last.images)
    )


def _kind(provenance: Provenance) -> str:
    if provenance.prompt is not None:
        return "prompt"
    if provenance.class_id is not None:
        return "class"
    if provenance.part_prompts:
        # Part prompts alone go with the empty prompt.
        return "prompt"
    return "picture" if provenance.images else "none"


def _request(
    group: list[Provenance], changes: Changes, pictures: _Pictures, shift: int, batch_size: int | None
) -> Request:
    first, kind = group[0], _kind(group[0])
    options = dict(first.options)
    if changes.guidance is not None:
        options["guidance"] = changes.guidance
    options.update({name.replace("-", "_"): value for name, value in changes.options.items()})
    return Request(
        prompts=[p.prompt or "" for p in group] if kind == "prompt" else (),
        classes=[p.class_id for p in group if p.class_id is not None] if kind == "class" else (),
        negatives=[p.negative for p in group if p.negative is not None],
        part_prompts=() if kind == "none" else [p.part_prompts for p in group],
        images=pictures.of(group[:1] if kind == "none" else group),
        num=len(group) if kind == "none" else 1,
        size=first.size,
        seed=first.seed + shift,
        sampler=first.sampler,
        options=options,
        batch_size=batch_size,
    )
