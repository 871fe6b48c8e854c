"""`zoo cp`: copy a model's files to a plain folder."""

from __future__ import annotations

from pathlib import Path

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options


@click.command(short_help="Copy a model to a plain folder.")
@reference_argument()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in DIR.")
@output_options
def command(reference: str, folder: Path, overwrite: bool, out: Output) -> None:
    """Copy the files of the model REF to DIR, to be used on another machine with --weights DIR.

    DIR gets one <role>.safetensors for each file, and card.json with the facts of the model and the digests
    of the files. Every file is checked while it is copied. A new DIR appears complete or not at all.

    \b
    Examples:
      zoo cp tarflow:afhq256 afhq256
      zoo sample tarflow:afhq256 --weights afhq256
      zoo cp tarflow:shapes /media/stick/shapes --json
    """
    from zoo.catalogue import load_catalogue
    from zoo.quantities import human_bytes
    from zoo.store.exporting import export

    catalogue = load_catalogue()
    try:
        with out.progress("copying") as step:
            done = export(
                reference,
                folder,
                overwrite=overwrite,
                catalogue=catalogue,
                advanced=lambda copied, total: step(copied, total),
            )
    finally:
        out.warnings(catalogue.warnings)

    def text() -> None:
        for file in done.files:
            out.line(f"{file.path}  {human_bytes(file.size)}  sha256 {file.sha256}")

    out.result(done, text, quiet=[done.folder])
    out.hint(f"zoo sample {done.reference} --weights {done.folder}")
