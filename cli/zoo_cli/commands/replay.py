"""`zoo replay`: repeat a sample from the metadata in its file."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import ExitCode, InvalidInput
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Seed,
    batch_option,
    device_options,
    load_model,
    options_option,
    sampling_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from zoo.io.artifacts import Image
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.replaying import Replay
    from zoo.session import Session
    from zoo_cli.destination import Destination

#: Rounding may differ between machines and batch sizes by so many of 255 grey levels.
TOLERANCE = 1


@click.command("replay")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--seed", type=Seed(), help="Another seed, or 'random'.")
@click.option("--guidance", type=float, help="Another guidance weight.")
@options_option
@click.option("--check", is_flag=True, help="Write nothing; compare with the picture in the file.")
@click.option(
    "-o", "--out", "place", metavar="PATH", help="A file or folder; by default beside the original."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@batch_option
@device_options
@output_options
def command(files: tuple[str, ...], out: Output, **given: Any) -> int:
    """Repeat samples from the metadata in their files.

    On the same machine the picture is the same to the pixel. A contact sheet is repeated as a whole. With
    --check nothing is written: the exit code is 1 when a picture differs by more than one of 255 grey levels.

    \b
    zoo replay red-circle.png --check
    zoo replay red-circle.png --seed 1 -O guidance=3
    """
    from zoo.runtime.replaying import Changes

    changes = Changes(given["seed"], given["guidance"], dict(given["options"]))
    if given["check"] and (changes or given["place"]):
        raise click.UsageError("--check compares with the original: it goes with no change and no --out.")
    if given["check"] and given["overwrite"]:
        raise click.UsageError("--check writes nothing: leave out --overwrite.")
    from zoo.session import Session

    session = Session()
    originals = [_read(session, Path(name), changes, given["batch_size"]) for name in files]
    targets = [None if given["check"] else _target(o, given, len(originals)) for o in originals]
    runner = _Runner(session, out, given)
    results = []
    for original, target in zip(originals, targets, strict=True):
        picture = runner.repeat(original)
        result = _compare(original, picture) if target is None else _write(original, picture, target)
        results.append(result)
        out.line(result["line"])
    show_warnings(session, out)
    return _report(results, out, checked=bool(given["check"]))


@dataclass(frozen=True)
class Original:
    """A file to repeat, and the requests that do it."""

    path: Path
    parts: tuple[Replay, ...]
    grid: bool

    @property
    def samples(self) -> int:
        """How many samples it shows."""
        return sum(len(part.made) for part in self.parts)


def _read(session: Session, path: Path, changes: Any, batch_size: int | None) -> Original:
    from zoo.io.metadata import read_provenance, read_provenances
    from zoo.runtime.prepare import prepare
    from zoo.runtime.replaying import replays

    provenances = read_provenances(path)
    parts = tuple(replays(provenances, changes, batch_size))
    for part in parts:
        prepare(session, part.first.reference, part.request)
    grid = len(provenances) > 1
    if not grid:
        try:
            read_provenance(path)
        except InvalidInput:
            # A contact sheet of one.
            grid = True
    return Original(path, parts, grid)


def _target(original: Original, given: dict[str, Any], files: int) -> Destination:
    from zoo.io.writers import format_name
    from zoo_cli.destination import destination

    place = given["place"] or f"{original.path.parent}/"
    target = destination(place, None, pictures=files, overwrite=given["overwrite"])
    if target.file is not None:
        return target
    return dataclasses.replace(target, format=format_name("", _encoding(original.path)))


class _Runner:
    """Draws samples again; a model is loaded once for all files that need it."""

    def __init__(self, session: Session, out: Output, given: dict[str, Any]) -> None:
        self._session = session
        self._out = out
        self._given = given
        self._loaded: dict[tuple[str, ...], LoadedModel] = {}

    def repeat(self, original: Original) -> Image:
        """The picture of a file, drawn again."""
        images = [image for part in original.parts for image in self._draw(part)]
        return _sheet(original, images) if original.grid else images[0]

    def _draw(self, part: Replay) -> Iterator[Image]:
        from zoo.io.artifacts import Image

        loaded = self._model(part)
        self._warn(part, loaded)
        total = part.request.total
        title = f"replay {loaded.reference}"
        with sampling_progress(self._out, title, total, loaded.batch_size(part.request)) as progress:
            for index, artifact in enumerate(loaded.sample(part.request, progress.on_step)):
                if not isinstance(artifact, Image):
                    raise InvalidInput(f"replay works on images, and this sampler made: {artifact.kind}")
                progress.finished(index + 1)
                yield artifact

    def _model(self, part: Replay) -> LoadedModel:
        made = part.first
        device = self._given["device"] or self._same_device(made.device)
        dtype = self._given["dtype"] or made.dtype
        weights = self._given["weights"] or _own_weights(made.weights)
        key = (made.reference, str(device), dtype, str(weights))
        if key not in self._loaded:
            # One at a time: the pictures of several models may be replayed, but not all models held.
            self._loaded.clear()
            given = {**self._given, "device": device, "dtype": dtype, "weights": weights}
            self._loaded[key], _ = load_model(self._session, made.reference, self._out, given, made.sampler)
        return self._loaded[key]

    def _same_device(self, name: str) -> str | None:
        from zoo.runtime.devices import checked_device

        try:
            checked_device(name)
        except InvalidInput:
            self._out.warning(
                f"the picture was made on {name}, which is not here: small differences are normal"
            )
            return None
        return name

    def _warn(self, part: Replay, loaded: LoadedModel) -> None:
        from zoo.version import __version__

        made = part.first
        if made.zoo_version != __version__:
            self._out.warning(f"the picture was made by zoo {made.zoo_version}, this is {__version__}")
        if made.weights is not None and made.weights != loaded.weights:
            self._out.warning(
                f"the picture was made with the weights {made.weights}, these are {loaded.weights}"
            )


def _own_weights(weights: str | None) -> str | None:
    """The weights file that was given by hand, where it is still there."""
    if weights is None or weights.startswith("sha256:") or not Path(weights).is_file():
        return None
    return weights


def _sheet(original: Original, images: Sequence[Image]) -> Image:
    """The contact sheet, with as many columns as the original has."""
    from zoo.io.grid import grid
    from zoo.io.images import read_image

    gap, width = 2, max(image.pixels.shape[2] for image in images)
    columns, rest = divmod(read_image(original.path).shape[2] + gap, width + gap)
    return grid(images, columns=columns if columns and not rest else None, gap=gap)


def _write(original: Original, picture: Image, target: Destination) -> dict[str, Any]:
    from zoo.io.names import fresh_path

    made = original.parts[0]
    if target.file is not None:
        path = target.file
    else:
        name = f"{original.path.stem}-replay{_encoding(original.path)}"
        path = target.folder / name if target.overwrite else fresh_path(target.folder, name)
    saved = picture.save(path, format=target.format, overwrite=target.overwrite)
    entry = {"source": str(original.path), "path": str(saved), "kind": picture.kind, "line": str(saved)}
    condition = {"prompt": made.first.prompt, "class": made.first.class_name or made.first.class_id}
    return {**entry, "reference": made.first.reference, "seed": made.request.seed, **condition}


def _compare(original: Original, picture: Image) -> dict[str, Any]:
    """The largest difference to the file's picture in grey levels, after the file's own encoding."""
    from zoo.io.images import read_image

    there = read_image(original.path)
    with tempfile.TemporaryDirectory() as folder:
        again = read_image(picture.save(Path(folder, f"picture{_encoding(original.path)}"), metadata=False))
    entry = {"source": str(original.path), "reference": original.parts[0].first.reference}
    if there.shape != again.shape:
        sizes = [f"{t.shape[2]}x{t.shape[1]}" for t in (there, again)]
        line = f"{original.path}: different: {sizes[0]} in the file, {sizes[1]} now"
        return {**entry, "same": False, "max_difference": None, "line": line}
    levels = ((there - again).abs() * 255.0).round()
    most, share = int(levels.max()), float((levels > 0).float().mean())
    same = most <= TOLERANCE
    verdict = (
        "identical"
        if most == 0
        else f"{'same' if same else 'different'}: at most {most} of 255, in {share:.1%} of values"
    )
    return {**entry, "same": same, "max_difference": most, "line": f"{original.path}: {verdict}"}


def _encoding(path: Path) -> str:
    """The suffix of what is in the file, whatever its name says."""
    import PIL.Image

    with PIL.Image.open(path) as picture:
        return {"PNG": ".png", "WEBP": ".webp", "JPEG": ".jpg"}[str(picture.format)]


def _report(results: list[dict[str, Any]], out: Output, checked: bool) -> int:
    quiet = [result["source" if checked else "path"] for result in results]
    entries = [{key: value for key, value in result.items() if key != "line"} for result in results]
    out.result({"checks" if checked else "outputs": entries}, lambda: None, quiet)
    failed = checked and not all(result["same"] for result in results)
    return ExitCode.FAILED if failed else ExitCode.OK
