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
from zoo.io.kinds import inline_text, is_inline
from zoo_cli.as_made import as_made, named, tell_differences
from zoo_cli.inline_texts import StreamedText, print_text, streams, text_progress
from zoo_cli.output import Output, clean, output_options
from zoo_cli.running import (
    Seed,
    batch_option,
    device_options,
    image_option,
    load_model,
    options_option,
    picture_of,
    show_warnings,
)
from zoo_cli.sample_report import images_entry

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.io.artifacts import Artifact, Image, Provenance
    from zoo.runtime.model import LoadedModel
    from zoo.runtime.replaying import Changes, Replay
    from zoo.session import Session
    from zoo_cli.destination import Destination

#: What makes another sample; a picture may also be the one that it was made from.
_CHANGES = ("seed", "guidance", "options", "place")

#: So many characters of two texts are shown from where they part.
_SHOWN = 40

#: Rounding may differ between machines and batch sizes by so many of 255 grey levels.
TOLERANCE = 1


@click.command("replay")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--seed", type=Seed(), help="Another seed, or 'random'.")
@click.option("--guidance", type=float, help="Another guidance weight.")
@image_option("Another picture to make it from, or the same one where it lies now; as in zoo sample.")
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
    What is no picture is repeated in its own format, and compared by the picture that shows it. Texts are
    printed, unless --out says where they go, and have to be the same to the letter.

    \b
    zoo replay red-circle.png --check
    zoo replay red-circle.png --seed 1 -O guidance=3
    zoo replay answer.json --image moved/photo.png
    """
    if given["check"] and any(given[name] not in (None, ()) for name in _CHANGES):
        raise click.UsageError("--check compares with the original: it goes with no change and no --out.")
    if given["check"] and given["overwrite"]:
        raise click.UsageError("--check writes nothing: leave out --overwrite.")
    from zoo.session import Session

    session, changes = Session(), _changes(given)
    originals = [_read(session, named(Path(name)), changes, given) for name in files]
    targets = [None if given["check"] else _target(o, given, len(originals)) for o in originals]
    runner = _Runner(session, out, given)
    results = []
    for original, target in zip(originals, targets, strict=True):
        if target is None:
            result = _compare(original, runner.repeat(original))
            out.line(result["line"])
        elif target.printed:
            result = _print(original, runner, one=len(originals) == 1)
        else:
            result = _write(original, runner.repeat(original), target)
            out.line(result["path"])
        results.append(result)
    show_warnings(session, out)
    return _report(results, out, checked=bool(given["check"]))


def _changes(given: dict[str, Any]) -> Changes:
    from zoo.runtime.replaying import Changes
    from zoo_cli.input_pictures import read_images, single_paths

    single_paths(given["images"], "for all samples of the files")
    images = {role: image for role, (image,) in read_images(given["images"]).items()}
    return Changes(given["seed"], given["guidance"], dict(given["options"]), images)


@dataclass(frozen=True)
class Original:
    """A file or a folder to repeat, and the requests that do it.

    `makes` is the class of what lies there: a picture where it is a contact sheet.
    """

    path: Path
    parts: tuple[Replay, ...]
    grid: bool
    makes: type[Artifact]


def _read(session: Session, path: Path, changes: Changes, given: dict[str, Any]) -> Original:
    from zoo.io.artifacts import Image
    from zoo.runtime.prepare import prepare
    from zoo.runtime.replaying import replays

    provenances, grid = _provenances(session, path)
    if given["check"] and changes.differ_from(provenances):
        raise InvalidInput(
            f"{path} was made from another picture than the one that was given",
            "--check compares with the original: give the very same picture, wherever it lies now.",
        )
    parts = tuple(replays(provenances, changes, given["batch_size"], beside=path.parent))
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

    # What is inline is printed where there is no --out; anything else goes beside the original.
    beside = None if is_inline(original.makes) else f"{original.path.parent}/"
    place = given["place"] or beside
    target = destination(place, None, pictures=files, makes=original.makes, overwrite=given["overwrite"])
    if target.file is not None or target.printed:
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

    def print(self, original: Original, one: bool) -> Artifact:
        """The text that lies in a file, made again and printed: as it comes, where it is the only `one`."""
        (part,) = original.parts
        streaming = streams(self._out, one, part.request.total)
        (artifact,) = self._draw(part, streaming)
        text = inline_text(artifact)
        if text is not None and not streaming and self._out.mode == "text":
            print_text(text)
        return artifact

    def _draw(self, part: Replay, streaming: bool = False) -> Iterator[Artifact]:
        loaded = self._model(part)
        tell_differences(part.first, loaded, self._out)
        total = part.request.total
        title, size = f"replay {loaded.reference}", loaded.batch_size(part.request)
        with text_progress(self._out, title, total, size, streams=streaming) as progress:
            for index, artifact in enumerate(loaded.sample(part.request, progress.on_step)):
                text = inline_text(artifact)
                if isinstance(progress, StreamedText) and text is not None:
                    progress.complete(text)
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
    stem = original.path.name if original.path.is_dir() else original.path.stem
    path = target.place_for(f"{stem}-replay{original.makes.formats[target.format][0]}")
    saved = artifact.save(path, format=target.format, overwrite=target.overwrite)
    return _entry(original, artifact, saved)


def _print(original: Original, runner: _Runner, one: bool) -> dict[str, Any]:
    return _entry(original, runner.print(original, one), None)


def _entry(original: Original, artifact: Artifact, saved: Path | None) -> dict[str, Any]:
    """What --json tells of a sample that was drawn again."""
    made, text = original.parts[0], inline_text(artifact)
    path = None if saved is None else str(saved)
    entry = {"source": str(original.path), "path": path, "kind": artifact.kind}
    condition = {
        "prompt": made.first.prompt,
        "part_prompts": list(made.first.part_prompts),
        "class": made.first.class_name or made.first.class_id,
        **images_entry(made.first.images if artifact.provenance is None else artifact.provenance.images),
    }
    said = {} if text is None else {"text": text}
    return {**entry, **said, "reference": made.first.reference, "seed": made.request.seed, **condition}


def _compare(original: Original, artifact: Artifact) -> dict[str, Any]:
    """How a sample differs from what lies in its file."""
    from zoo.io.reading import read_artifact

    there = read_artifact(original.path, original.makes)
    entry = {"source": str(original.path), "reference": original.parts[0].first.reference}
    before, now = inline_text(there), inline_text(artifact)
    verdict = _texts_differ(before, now) if before is not None and now is not None else None
    if verdict is None:
        verdict = _pictures_differ(original, picture_of(there).pixels, artifact)
    return {**entry, **verdict, "line": f"{original.path}: {verdict['line']}"}


def _texts_differ(before: str, now: str) -> dict[str, Any]:
    if before == now:
        return {"same": True, "max_difference": None, "line": "identical"}
    both = enumerate(zip(before, now, strict=False))
    place = next((i for i, (then, again) in both if then != again), min(len(before), len(now)))
    shown = [repr(text[place : place + _SHOWN]) for text in (before, now)]
    line = f"different from character {place + 1} on: {shown[0]} in the file, {shown[1]} now"
    return {"same": False, "max_difference": None, "line": line}


def _pictures_differ(original: Original, there: Tensor, artifact: Artifact) -> dict[str, Any]:
    """The largest difference to the file's picture in grey levels, after the file's own encoding."""
    from zoo.io.reading import format_of, read_artifact

    format = format_of(original.path, original.makes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"again{original.makes.formats[format][0]}")
        saved = artifact.save(path, format=format, metadata=False)
        again = picture_of(read_artifact(saved, original.makes)).pixels
    if there.shape != again.shape:
        sizes = [f"{t.shape[2]}x{t.shape[1]}" for t in (there, again)]
        line = f"different: {sizes[0]} in the file, {sizes[1]} now"
        return {"same": False, "max_difference": None, "line": line}
    levels = ((there - again).abs() * 255.0).round()
    most, share = int(levels.max()), float((levels > 0).float().mean())
    same = most <= TOLERANCE
    verdict = (
        "identical"
        if most == 0
        else f"{'same' if same else 'different'}: at most {most} of 255, in {share:.1%} of values"
    )
    return {"same": same, "max_difference": most, "line": verdict}


def _report(results: list[dict[str, Any]], out: Output, checked: bool) -> int:
    quiet = [result["source"] if checked else _shown(result) for result in results]
    entries = [{key: value for key, value in result.items() if key != "line"} for result in results]
    out.result({"checks" if checked else "outputs": entries}, lambda: None, quiet)
    failed = checked and not all(result["same"] for result in results)
    return ExitCode.FAILED if failed else ExitCode.OK


def _shown(result: dict[str, Any]) -> str:
    """Where a sample lies, or the text itself that lies nowhere."""
    return str(result["path"] or clean(result["text"]).removesuffix("\n"))
