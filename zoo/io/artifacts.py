"""Artifacts: what a sampler gives back, and the provenance that allows to repeat it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from zoo.io.pixels import to_bytes8

PROVENANCE_KEY = "zoo"
"""Under this key a file holds the provenance of its one sample."""

_TEXT = ("reference", "sampler", "dtype", "device", "zoo_version")
_OPTIONAL_TEXT = ("weights", "revision", "prompt", "negative", "class_name")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything needed to repeat a sample.

    reference: model reference, such as "tarflow:shapes".
    weights: digest "sha256:<hex>" of the weights, or a description of the path they came from.
    revision: revision of the weights; None where the reference has none.
    prompt, class_name, class_id: the condition; None where the sample had none of that sort.
    negative: the negative prompt; None where none was given.
    part_prompts: what each part shows, such as each layer from back to front; empty where none was asked for.
    images: the pictures that it was given, by role: "sha256", the digest of their 8-bit pixels
        (`zoo.io.inputs.InputImage.digest`), and "path", as it was given, or None where a program made it.
    seed: seed of this very sample (of a run of several: seed of the run + index of the sample).
    sampler: name of the registered sampler.
    options: resolved sampler options, defaults included; JSON values only (tuples become lists).
    size: (height, width) asked for, in pixels; None where the model decides.
    dtype, device: what the sample was computed with, such as "bfloat16" and "cuda".
    zoo_version: version of zoo that made it.

    Raises ValueError when a field has the wrong type or an option has no JSON form.
    """

    reference: str
    weights: str | None = None
    revision: str | None = None
    prompt: str | None = None
    negative: str | None = None
    part_prompts: tuple[str, ...] = ()
    images: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict, hash=False)
    class_name: str | None = None
    class_id: int | None = None
    seed: int
    sampler: str
    options: Mapping[str, object] = field(hash=False)
    size: tuple[int, int] | None = None
    dtype: str
    device: str
    zoo_version: str

    def __post_init__(self) -> None:
        for name in _TEXT:
            _expect(name, getattr(self, name), str)
        for name in _OPTIONAL_TEXT:
            _expect(name, getattr(self, name), str, optional=True)
        _expect("seed", self.seed, int)
        _expect("class_id", self.class_id, int, optional=True)
        # Normalised here, so that a provenance equals the one read back from a file.
        object.__setattr__(self, "options", _json_options(self.options))
        object.__setattr__(self, "size", _checked_size(self.size))
        object.__setattr__(self, "part_prompts", _checked_texts("part_prompts", self.part_prompts))
        object.__setattr__(self, "images", _checked_images(self.images))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values only; `from_dict` is the inverse."""
        values = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        values["options"] = dict(self.options)
        values["part_prompts"] = list(self.part_prompts)
        values["images"] = {role: dict(facts) for role, facts in self.images.items()}
        values["size"] = None if self.size is None else list(self.size)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Build a provenance from what `to_dict` returned.

        Unknown keys are ignored, so that files of a later version can be read. Raises ValueError when a
        required key is missing or a value has the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"provenance: expected a mapping, got {values!r}")
        known = dataclasses.fields(cls)
        required = [
            item.name
            for item in known
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in values]
        if missing:
            raise ValueError(f"provenance lacks {', '.join(missing)}")
        return cls(**{item.name: values[item.name] for item in known if item.name in values})


def _expect(name: str, value: object, kind: type, optional: bool = False) -> None:
    if optional and value is None:
        return
    # bool is an int to isinstance, and `seed=True` is always a mistake.
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = kind.__name__ + (" or None" if optional else "")
        raise ValueError(f"provenance field {name}: expected {wanted}, got {value!r}")


def _json_options(options: object) -> dict[str, object]:
    if not isinstance(options, Mapping):
        raise ValueError(f"provenance field options: expected a mapping, got {options!r}")
    normal: dict[str, object] = {}
    for name, value in options.items():
        _expect("options (a name)", name, str)
        try:
            normal[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"provenance option {name}: {value!r} has no JSON form ({error})") from error
    return normal


def _checked_texts(name: str, texts: Any) -> tuple[str, ...]:
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"provenance field {name}: expected a list of texts, got {texts!r}")
    return tuple(texts)


def _checked_images(images: Any) -> dict[str, dict[str, str | None]]:
    if not isinstance(images, Mapping) or not all(isinstance(role, str) for role in images):
        raise ValueError(f"provenance field images: expected a mapping from roles, got {images!r}")
    checked = {}
    for role, facts in images.items():
        digest, path = (facts.get("sha256"), facts.get("path")) if isinstance(facts, Mapping) else (None, 0)
        if not isinstance(digest, str) or not (path is None or isinstance(path, str)):
            raise ValueError(f"provenance field images: expected sha256 and path of '{role}', got {facts!r}")
        checked[role] = {"sha256": digest, "path": path}
    return checked


def _checked_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if (
        not isinstance(size, tuple | list)
        or len(size) != 2
        or any(type(side) is not int or side < 1 for side in size)
    ):
        raise ValueError(f"provenance field size: expected two positive integers or None, got {size!r}")
    return (size[0], size[1])


@runtime_checkable
class Artifact(Protocol):
    """What every output is, whatever its kind.

    Every kind (picture, layered image, video, text, array) implements these names and nothing else is asked
    of it. `kind` is a short lower-case name, fixed per class. `formats` maps each file format to its
    suffixes, with the default first; the suffix "" is a folder. `provenance` is None when the artifact was
    not made by one sample.

    A class may say `inline: ClassVar[bool] = True` and have an attribute `text`, as `zoo.io.text.Text` does:
    its artifacts are read where they are made. The command line writes their text to stdout, and a file only
    where one is asked for.
    """

    kind: ClassVar[str]
    formats: ClassVar[Mapping[str, tuple[str, ...]]]

    @property
    def provenance(self) -> Provenance | None: ...

    def picture(self) -> Image:
        """Return a picture that shows the artifact, for contact sheets and comparisons."""
        ...

    def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,
        metadata: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Write the artifact to `path` and return where it lies.

        format: name of a format of this kind; None takes it from the path's suffix.
        metadata: whether the provenance goes into the file; False leaves no trace of it.
        overwrite: whether an existing file may be replaced; else it is OutputExists.
        """
        ...


@dataclass(frozen=True, eq=False)
class Image:
    """A picture.

    pixels: float32 [3, h, w] (RGB) or [1, h, w] (grey) on the CPU, nominally in [0, 1]; what lies outside is
    clamped when written. Raises ValueError for any other shape, dtype or device.
    """

    pixels: Tensor
    provenance: Provenance | None = None

    kind: ClassVar[str] = "image"
    formats: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "png": (".png",),
        "webp": (".webp",),
        "jpeg": (".jpg", ".jpeg"),
    }

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dim() != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
            raise ValueError(f"image pixels: expected shape [3, h, w] or [1, h, w], got {list(pixels.shape)}")
        if pixels.dtype != torch.float32 or pixels.device.type != "cpu":
            raise ValueError(f"image pixels: expected float32 on cpu, got {pixels.dtype} on {pixels.device}")

    def to_bytes8(self) -> Tensor:
        """Return uint8 [h, w, c], contiguous: floor(255 x + 0.5), clamped to [0, 255].

        Raises ZooError when a pixel is not finite, because such a pixel has no colour.
        """
        return to_bytes8(self.pixels)

    def picture(self) -> Image:
        """Return the picture itself."""
        return self

    def metadata(self) -> dict[str, Any] | None:
        """Return the JSON document that goes into the file, or None when there is nothing to tell."""
        return None if self.provenance is None else {PROVENANCE_KEY: self.provenance.to_dict()}

    def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,
        metadata: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Write a PNG, WebP or JPEG file; see `zoo.io.writers.save_image`."""
        # Imported here because Pillow is only needed by those who write a file.
        from zoo.io.writers import save_image

        return save_image(self, path, format=format, metadata=metadata, overwrite=overwrite)
