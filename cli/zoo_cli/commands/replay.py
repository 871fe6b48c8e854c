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
from zoo_cli.as_made import as_made, named, tell_differences
from zoo_cli.output import Output, output_options
from zoo_cli.running import (
    Seed,
    batch_option,
    device_options,
    load_model,
    options_option,
    picture_of,
    sampling_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.io.artifacts import Artifact, Image, Provenance
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
    What is no picture is repeated in its own format, and compared by the picture that shows it.

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
    originals = [_read(session, named(Path(name)), changes, given["batch_size"]) for name in files]
    targets = [None if given["check"] else _target(o, given, len(originals)) for o in originals]
    runner = _Runner(session, out, given)
    results = []
    for original, target in zip(originals, targets, strict=True):
        if target is None:
            result = _compare(original, _stored(original), runner.repeat(original))
        else:
            result = _write(original, runner.repeat(original), target)
        results.append(result)
        out.line(result["line"])
    show_warnings(session, out)
    return _report(results, out, checked=bool(given["check"]))


@dataclass(frozen=True)
class Original:
    """A file or a folder to repeat, and the requests that do it.

    `makes` is the class of what lies there: a picture where it is a contact sheet.
    """

    path: Path
    parts: tuple[Replay, ...]
    grid: bool
    makes: type[Artifact]


def _read(session: Session, path: Path, changes: Any, batch_size: int | None) -> Original:
    from zoo.io.artifacts import Image
    from zoo.runtime.prepare import prepare
    from zoo.runtime.replaying import replays

    provenances, grid = _provenances(session, path)
    parts = tuple(replays(provenances, changes, batch_size))
    made = [prepare(session, part.first.reference, part.request).makes for part in parts]
    return Original(path, parts, grid, Image if grid else made[0])


def _provenances(session: Session, path: Path) -> tuple[list[Provenance], bool]:
    """How the samples that lie at `path` were made, and whether it is a contact sheet of them."""
    from zoo.io.metadata import read_provenance, read_provenances
    from zoo.io.reading import read_unknown

    try:
        provenances = read_provenances(path)
    except InvalidInput:
        if not path.exists():
            raise
        # It may be of a kind that only the plugin knows that makes it.
        session.plugins.load_all()
        artifact = read_unknown(path, [sampler.makes for sampler in session.registry.samplers])
        if artifact is None or artifact.provenance is None:
            raise
        return [artifact.provenance], False
    if len(provenances) > 1:
        return provenances, True
    try:
        read_provenance(path)
    except InvalidInput:
        # A contact sheet of one.
        return provenances, True
    return provenances, False


def _target(original: Original, given: dict[str, Any], files: int) -> Destination:
    from zoo.io.reading import format_of
    from zoo_cli.destination import destination

    place = given["place"] or f"{original.path.parent}/"
    target = destination(place, None, pictures=files, makes=original.makes, overwrite=given["overwrite"])
    if target.file is not None:
        return target
    return dataclasses.replace(target, format=format_of(original.path, original.makes))


class _Runner:
    """Draws samples again; a model is loaded once for all files that need it."""

    def __init__(self, session: Session, out: Output, given: dict[str, Any]) -> None:
        self._session = session
        self._out = out
        self._given = given
        self._loaded: dict[tuple[str, ...], LoadedModel] = {}

    def repeat(self, original: Original) -> Artifact:
        """What lies in a file, drawn again."""
        drawn = (artifact for part in original.parts for artifact in self._draw(part))
        if original.grid:
            return _sheet(original, list(map(picture_of, drawn)))
        (artifact,) = drawn
        return artifact

    def _draw(self, part: Replay) -> Iterator[Artifact]:
        loaded = self._model(part)
        tell_differences(part.first, loaded, self._out)
        total = part.request.total
        title = f"replay {loaded.reference}"
        with sampling_progress(self._out, title, total, loaded.batch_size(part.request)) as progress:
            for index, artifact in enumerate(loaded.sample(part.request, progress.on_step)):
                progress.finished(index + 1)
                yield artifact

    def _model(self, part: Replay) -> LoadedModel:
        made = part.first
        given = as_made(made, self._given, self._out)
        key = (made.reference, *(str(given[name]) for name in ("device", "dtype", "weights")))
        if key not in self._loaded:
            # One at a time: the pictures of several models may be replayed, but not all models held.
            self._loaded.clear()
            self._loaded[key], _ = load_model(self._session, made.reference, self._out, given, made.sampler)
        return self._loaded[key]


def _sheet(original: Original, images: Sequence[Image]) -> Image:
    """The contact sheet, with as many columns as the original has."""
    from zoo.io.grid import grid
    from zoo.io.images import read_image

    gap, width = 2, max(image.pixels.shape[2] for image in images)
    columns, rest = divmod(read_image(original.path).shape[2] + gap, width + gap)
    return grid(images, columns=columns if columns and not rest else None, gap=gap)


def _write(original: Original, artifact: Artifact, target: Destination) -> dict[str, Any]:
    made = original.parts[0]
    stem = original.path.name if original.path.is_dir() else original.path.stem
    path = target.place_for(f"{stem}-replay{original.makes.formats[target.format][0]}")
    saved = artifact.save(path, format=target.format, overwrite=target.overwrite)
    entry = {"source": str(original.path), "path": str(saved), "kind": artifact.kind, "line": str(saved)}
    condition = {
        "prompt": made.first.prompt,
        "part_prompts": list(made.first.part_prompts),
        "class": made.first.class_name or made.first.class_id,
    }
    return {**entry, "reference": made.first.reference, "seed": made.request.seed, **condition}


def _stored(original: Original) -> Tensor:
    """The picture that shows what lies in a file, [c, h, w] in [0, 1]."""
    from zoo.io.reading import read_artifact

    return picture_of(read_artifact(original.path, original.makes)).pixels


def _compare(original: Original, there: Tensor, artifact: Artifact) -> dict[str, Any]:
    """The largest difference to the file's picture in grey levels, after the file's own encoding."""
    from zoo.io.reading import format_of, read_artifact

    format = format_of(original.path, original.makes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"again{original.makes.formats[format][0]}")
        saved = artifact.save(path, format=format, metadata=False)
        again = picture_of(read_artifact(saved, original.makes)).pixels
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


def _report(results: list[dict[str, Any]], out: Output, checked: bool) -> int:
    quiet = [result["source" if checked else "path"] for result in results]
    entries = [{key: value for key, value in result.items() if key != "line"} for result in results]
    out.result({"checks" if checked else "outputs": entries}, lambda: None, quiet)
    failed = checked and not all(result["same"] for result in results)
    return ExitCode.FAILED if failed else ExitCode.OK
