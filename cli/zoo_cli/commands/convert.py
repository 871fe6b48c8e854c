"""`zoo convert`: a checkpoint to safetensors under our names, or back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options

_path = click.Path(path_type=Path)


@click.command(short_help="Convert a checkpoint to safetensors, or back.")
@reference_argument()
@click.argument("source", metavar="INPUT", type=_path)
@click.argument("destination", metavar="OUTPUT", type=_path)
@click.option("--export", is_flag=True, help="From our names to the authors' names.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Store numbers in this format."
)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@output_options
def command(
    reference: str,
    source: Path,
    destination: Path,
    export: bool,
    dtype: str | None,
    overwrite: bool,
    out: Output,
) -> None:
    """Convert the checkpoint INPUT of the variant REF to OUTPUT, a safetensors file that zoo loads as it is.

    INPUT is a PyTorch checkpoint, of which only tensors are read, or safetensors under the authors' names;
    one that has our names already is only written anew. Every tensor's name and shape is checked against the
    architecture before anything is written. With --export the way is the inverse: INPUT has our names, and
    OUTPUT (.safetensors, .pth or .pt) those that the authors' code loads.

    \b
    Examples:
      zoo convert tarflow:afhq256 afhq_model.pth afhq256.safetensors --dtype bfloat16
      zoo sample tarflow:afhq256 --weights afhq256.safetensors
      zoo convert tarflow:afhq256 afhq256.safetensors afhq_model.pth --export
    """
    from zoo.session import Session
    from zoo.store.conversion import convert_file, export_file

    session = Session()
    convert = export_file if export else convert_file
    done = convert(session, reference, source, destination, dtype, overwrite)
    out.warnings(session.warnings)
    text = f"{done.path}: {done.tensors} tensors, {done.size} bytes, {', '.join(done.dtypes)}"
    out.result(dataclasses.asdict(done), lambda: out.line(text), quiet=[done.path])
    out.hint(
        f"The converter was {done.converter}."
        if done.converter
        else "The names were ours already and were kept."
    )
