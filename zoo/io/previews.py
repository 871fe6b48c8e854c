"""Previews: what a picture looks like while it is being drawn, in a file beside the final one's place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor


def preview_path(final: Path) -> Path:
    """Where the preview of a picture lies that goes to `final`."""
    return final.with_name(f"{final.stem}.preview.png")


class Previews:
    """Writes the estimates of a batch every so many steps, and takes them away when its pictures are done.

    every: steps from one preview to the next. A sampler that has an estimate only now and then, such as after
    each block of a flow, is shown at the first one that comes so many steps after the last. The last step
    has none: the picture itself follows.
    keep: write NAME.preview-STEP.png each time and leave them, rather than NAME.preview.png again and again.
    path_of: where the final picture of sample i is going to lie.
    scratch: a folder for files that are not complete yet; by default the picture's own.
    warn: told once if previews cannot be written. They never stop a run or change its result.
    """

    def __init__(
        self,
        every: int,
        keep: bool,
        path_of: Callable[[int], Path],
        warn: Callable[[str], None],
        scratch: Path | None = None,
    ) -> None:
        self.written = 0
        self._every = every
        self._keep = keep
        self._path_of = path_of
        self._warn = warn
        self._scratch = scratch
        self._seen = 0
        self._shown = 0
        self._lying: dict[int, Path] = {}
        self._broken = False

    def due(self, step: int, total: int) -> bool:
        """Whether an estimate after `step` of `total` would be shown."""
        shown = 0 if step < self._seen else self._shown
        return not self._broken and step < total and step - shown >= self._every

    def show(self, first: int, step: int, total: int, preview: Tensor | None) -> None:
        """Take notice of a step; `preview` [n, c, h, w] in [-1, 1] are samples `first` to `first` + n - 1.

        Tensors that are no pictures (c is neither 1 nor 3) are passed over.
        """
        due = self.due(step, total)
        if step < self._seen:
            self._shown = 0  # A batch that ran out of memory begins again in halves.
        self._seen = step
        if due and preview is not None and preview.dim() == 4 and preview.shape[1] in (1, 3):
            self._shown = step
            try:
                self._write(first, step, total, preview)
            except (ZooError, OSError) as error:
                self._broken = True
                self._warn(f"no further previews: {error}")

    def finished(self, index: int) -> None:
        """The picture of a sample lies in its place."""
        self._seen = self._shown = 0
        path = self._lying.pop(index, None)
        if path is not None:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Take away the previews of pictures that were not finished."""
        for index in list(self._lying):
            self.finished(index)

    def _write(self, first: int, step: int, total: int, preview: Tensor) -> None:
        from zoo.io.artifacts import Image

        # A copy: whatever happens to it, the sampler's own tensor stays as it is.
        pixels = preview.detach().float().cpu().add(1.0).mul_(0.5).nan_to_num_(0.0)
        for offset, picture in enumerate(pixels):
            path = self._place(first + offset, step, total)
            if not self._keep:
                self._lying[first + offset] = path
            unfinished = path if self._scratch is None else self._scratch / path.name
            Image(picture).save(unfinished, format="png", metadata=False, overwrite=True)
            if unfinished != path:
                os.replace(unfinished, path)
            self.written += 1

    def _place(self, index: int, step: int, total: int) -> Path:
        final = self._path_of(index)
        if not self._keep:
            return preview_path(final)
        return final.with_name(f"{final.stem}.preview-{step:0{len(str(total))}d}.png")
