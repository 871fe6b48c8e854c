"""`zoo edit`: change one layer of a layered picture; every other layer stays as it is, byte for byte."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.errors import InvalidInput
from zoo_cli.as_made import as_made, named, tell_differences
from zoo_cli.output import Output, output_options
from zoo_cli.running import Seed, device_options, load_model, options_option, sampling_progress, show_warnings

if TYPE_CHECKING:
    from zoo.io.artifacts import Provenance
    from zoo.io.layers import LayeredImage
    from zoo.io.request import Request
    from zoo.session import Session
    from zoo_cli.destination import Destination

#: Options that have the model draw, and those that need none.
_REDRAWS = ("prompt", "whole", "seed", "strength", "options")
_ARRANGES = ("move", "hidden", "opacity")


class Offset(click.ParamType):  # type: ignore[type-arg]
    """`DX,DY` in pixels."""

    name = "DX,DY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            right, down = (int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"'{value}' is not an offset, expected two whole numbers, such as 4,-2.", param, ctx)
        return right, down


class Share(click.FloatRange):
    """A number up to 1. click's own range also lets "nan" through, which no comparison refuses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"'{value}' is not a number.", param, ctx)
        return number


@click.command("edit")
@click.argument("file", metavar="FILE")
@click.option("--layer", type=click.IntRange(min=0), required=True, help="Its number; 0 is the background.")
@click.option("-p", "--prompt", help="What the layer shall show instead: it is drawn anew.")
@click.option("--seed", type=Seed(), help="Draw it anew with another seed, or 'random'.")
@click.option(
    "--strength",
    type=Share(0, 1, min_open=True),
    help="How much of it is drawn anew, up to 1 (default); less restyles what is there.",
)
@click.option(
    "--whole", metavar="TEXT", help="The prompt of the whole picture; by default the old one, adapted."
)
@options_option
@click.option("--move", type=Offset(), help="Move it so many pixels to the right and down.")
@click.option("--hide/--show", "hidden", default=None, help="Leave it out of the picture, or show it again.")
@click.option("--opacity", type=Share(0, 1), help="How much it covers, 0 to 1.")
@click.option(
    "-o", "--out", "place", metavar="PATH", help="A file or folder; by default beside the original."
)
@click.option("--format", metavar="NAME", help="ora, folder or psd; by default that of the original.")
@click.option("--no-metadata", is_flag=True, help="Leave out of the file how it was made.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@device_options
@output_options
def command(file: str, out: Output, **given: Any) -> None:
    """Change one layer of a layered picture: an .ora file, a folder of layers, or a PSD file.

    Every other layer stays as it is, byte for byte. With --prompt, --seed or --strength the model that made
    the picture draws the layer anew, in the sight of the others.

    \b
    zoo edit picture.ora --layer 1 --prompt "a green ring"
    zoo edit picture.ora --layer 2 --seed 7 --strength 0.5
    zoo edit picture.ora --layer 1 --move 4,-2 --opacity 0.8 -o moved.ora
    """
    redraws = any(given[name] not in (None, ()) for name in _REDRAWS)
    if not redraws and all(given[name] is None for name in _ARRANGES):
        names = ("prompt", "seed", "strength", "move", "hide", "show", "opacity")
        options = ", ".join(f"--{name}" for name in names)
        raise click.UsageError(f"nothing to change: give one of {options}.")
    # Imported here, so that --help stays quick.
    from zoo.io.layers import read_layers

    source = named(Path(file))
    image = read_layers(source)
    layer: int = given["layer"]
    target = _target(source, given)
    if redraws:
        image = _redrawn(image, layer, out, given)
    image = _arranged(image, layer, given)
    saved = _save(image, source, target)
    entry = {
        "source": str(source),
        "path": str(saved),
        "kind": image.kind,
        "layer": layer,
        "name": image.layers[layer].name,
        "redrawn": redraws,
        **_how_made(image.provenance),
    }
    out.result({"outputs": [entry]}, lambda: out.line(str(saved)), [str(saved)])


def _how_made(made: Provenance | None) -> dict[str, Any]:
    """What the file tells of how it was made, under the names that `zoo sample --json` gives it."""
    if made is None:
        return {"reference": None, "seed": None, "prompt": None, "part_prompts": []}
    told = {"reference": made.reference, "seed": made.seed, "prompt": made.prompt}
    return {**told, "part_prompts": list(made.part_prompts)}


def _arranged(image: LayeredImage, layer: int, given: dict[str, Any]) -> LayeredImage:
    """The picture with the layer moved, hidden, shown or faded; raises for a layer that is not there."""
    right, down = given["move"] or (0, 0)
    image = image.moved(layer, right, down)
    if given["hidden"] is not None:
        image = image.with_layer(layer, visible=not given["hidden"])
    if given["opacity"] is not None:
        image = image.with_layer(layer, opacity=given["opacity"])
    return image


def _target(source: Path, given: dict[str, Any]) -> Destination:
    from zoo.io.layers import LayeredImage
    from zoo.io.reading import format_of
    from zoo_cli.destination import destination

    place = given["place"] or f"{source.parent}/"
    target = destination(
        place,
        given["format"],
        pictures=1,
        makes=LayeredImage,
        overwrite=given["overwrite"],
        metadata=not given["no_metadata"],
    )
    if target.file is not None or given["format"]:
        return target
    return dataclasses.replace(target, format=format_of(source, LayeredImage))


def _redrawn(image: LayeredImage, layer: int, out: Output, given: dict[str, Any]) -> LayeredImage:
    from zoo.runtime.redrawing import Redrawing, redraw, redraw_request
    from zoo.session import Session

    redrawing = Redrawing(
        layer,
        given["prompt"],
        given["whole"],
        given["seed"],
        1.0 if given["strength"] is None else given["strength"],
        dict(given["options"]),
    )
    request, session = redraw_request(image, redrawing), Session()
    made = image.provenance
    assert made is not None
    _check(session, made, request, adapted=given["whole"] is None)
    loaded, _ = load_model(session, made.reference, out, as_made(made, given, out), made.sampler)
    tell_differences(made, loaded, out)
    with sampling_progress(out, f"edit {loaded.reference}", 1, 1) as progress:
        changed = redraw(loaded, image, redrawing, progress.on_step)
        progress.finished(1)
    show_warnings(session, out)
    return changed


def _check(session: Session, made: Provenance, request: Request, adapted: bool) -> None:
    """Refuse what the model does not take; also a prompt of the whole that nobody wrote as it is now."""
    from zoo.runtime.prepare import prepare

    old = dataclasses.replace(request, prompts=(made.prompt or "",))
    if not adapted or request.prompts == old.prompts:
        prepare(session, made.reference, request)
        return
    # First with the old one: what is wrong with the layer's prompt or the options is told as such.
    prepare(session, made.reference, old)
    try:
        prepare(session, made.reference, request)
    except InvalidInput as error:
        raise InvalidInput(
            f"with the layer's new prompt, that of the whole picture becomes '{request.prompts[0]}', which "
            "the model does not understand",
            "Say what the whole picture shows then, with --whole TEXT.",
        ) from error


def _save(image: LayeredImage, source: Path, target: Destination) -> Path:
    stem = source.name if source.is_dir() else source.stem
    path = target.place_for(f"{stem}-edit{image.formats[target.format][0]}")
    return image.save(path, target.format, target.metadata, target.overwrite)
