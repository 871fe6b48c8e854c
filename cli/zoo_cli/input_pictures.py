"""Pictures that are given to a model, from files: `--image`, and the lines of a prompt file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InvalidInput

if TYPE_CHECKING:
    from zoo.io.inputs import InputImage

#: Pictures of a prompt file that are kept while its lines are checked: neighbours often share theirs.
_KEPT = 4


def read_images(given: Iterable[tuple[str, str]]) -> dict[str, list[InputImage]]:
    """The pictures of `--image`, each role's in the order in which they were given.

    given: (role, path) of each. Raises `InvalidInput` for what is missing or no picture.
    """
    from zoo.io.inputs import InputImage

    images: dict[str, list[InputImage]] = {}
    for role, path in given:
        images.setdefault(role, []).append(InputImage.read(Path(path).expanduser()))
    return images


def single_paths(given: Sequence[tuple[str, str]], why: str) -> dict[str, Path]:
    """The paths of `--image` where a role may have one alone; `why` ends the error for several."""
    paths: dict[str, Path] = {}
    for role, path in given:
        if role in paths:
            raise InvalidInput(f"several pictures were given as '{role}', expected one {why}")
        paths[role] = Path(path).expanduser()
    return paths


@dataclass(frozen=True)
class PictureFile:
    """A picture that was read once: where it lies, its digest, and what its pixels take in memory."""

    path: Path
    digest: str
    bytes: int


class PictureFiles:
    """The pictures of a prompt file, which are read when they are needed: there may be too many to hold."""

    def __init__(self) -> None:
        self._known: dict[Path, PictureFile] = {}
        self._kept: OrderedDict[Path, InputImage] = OrderedDict()

    def file(self, path: Path) -> PictureFile:
        """What is known of a picture; raises `InvalidInput` for what is missing or no picture."""
        if path not in self._known:
            self.read(path)
        return self._known[path]

    def read(self, path: Path) -> InputImage:
        """The picture itself; raises `InvalidInput` for one that changed since it was first read."""
        from zoo.io.inputs import InputImage

        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        image = InputImage.read(path)
        known = self._known.setdefault(path, PictureFile(path, image.digest, image.pixels.nbytes))
        if known.digest != image.digest:
            raise InvalidInput(
                f"{path} is another picture than it was when the prompts were checked",
                "Run the same command again when its pictures are complete.",
            )
        self._kept[path] = image
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return image
