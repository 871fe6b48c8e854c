"""`zoo pull`: download a model's weights, check them and make them ready to load."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from zoo.errors import ExitCode, InvalidInput, NotFound, ZooError
from zoo_cli.arguments import complete_reference
from zoo_cli.output import Output, output_options

if TYPE_CHECKING:
    from zoo.cards import Card, Variant
    from zoo.catalogue import Catalogue
    from zoo.session import Session
    from zoo.store.licences import Terms
    from zoo.store.manifest import Manifest, Stored

#: More connections than this no server owes anybody.
MOST_CONNECTIONS = 64

_VOUCHED = {
    "card": "verified by the card",
    "hub": "verified by the hub",
    "first pull": "unverified: nobody publishes a digest; recorded, and any change will be refused",
}


@click.command(short_help="Download a model's weights.")
@click.argument("references", metavar="REF...", nargs=-1, shell_complete=complete_reference)
@click.option(
    "--from", "given", metavar="[ROLE=]FILE", multiple=True, help="A file you have already; repeatable."
)
@click.option("--accept-licence", is_flag=True, help="Accept the terms of the weights.")
@click.option("--keep-original", is_flag=True, help="Keep a checkpoint beside what it is converted to.")
@click.option("--accept-change", is_flag=True, help="Believe a file that differs from the one first pulled.")
@click.option(
    "--connections",
    type=click.IntRange(1, MOST_CONNECTIONS),
    metavar="N",
    help="Connections to a server at once.",
)
@click.option("--no-space-check", is_flag=True, help="Do not look for free disk space first.")
@output_options
def command(references: tuple[str, ...], out: Output, **options: Any) -> int:
    """Download a model's weights, check them and make them ready to load.

    What is here already is not downloaded again. An interrupted download is kept: the same command goes on
    where it stopped. PyTorch checkpoints are read without running code and converted to safetensors. With
    --from, a file that you have is checked and converted in place of a download; ROLE tells which one it is,
    where a model has several.

    \b
    Examples:
      zoo pull tarflow:afhq256 --accept-licence
      zoo pull tarflow:afhq256 --from Downloads/afhq_model_8_768_8_8_0.07.pth
      zoo pull tarflow:afhq256-retrain --connections 8 --json
    """
    if not references:
        raise InvalidInput(
            "which model? zoo pull takes one or more references",
            "zoo list --state published shows what can be pulled.",
        )
    if options["given"] and len(references) > 1:
        raise InvalidInput("--from takes one reference, the one that the file is of", "zoo pull --help")
    from zoo.catalogue import load_catalogue

    pulls = _Pulls(load_catalogue(), out, options)
    code = pulls.run(references)
    documents = [outcome.document() for outcome in pulls.outcomes]
    if len(references) > 1 or documents:
        out.result(documents if len(references) > 1 else documents[0], lambda: None)
    if pulls.outcomes and code == ExitCode.OK:
        out.hint(f"zoo sample {pulls.outcomes[0].manifest.reference}")
    return code


@dataclass(frozen=True)
class _Outcome:
    """What became of one reference."""

    manifest: Manifest
    how: Literal["pulled", "already here", "built in"]
    origin: str

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        files = [_file(file) for file in self.manifest.files]
        return {
            "reference": self.manifest.reference,
            "files": files,
            "size": self.manifest.size,
            "missing": list(self.manifest.missing),
        }

    def show(self, out: Output) -> None:
        """Print it at once, so that a pipe can work on the first model while the second comes."""
        from zoo.quantities import human_bytes

        if out.mode == "quiet":
            for file in self.manifest.files:
                print(file.path)
        what = self.how
        if what == "built in":
            place = "lies beside its card" if self.origin == "user" else f"ships with {self.origin}"
            out.line(f"{self.manifest.reference}: {place}, nothing to pull")
        else:
            out.line(f"{self.manifest.reference}: {what}, {human_bytes(self.manifest.size)}")
        for file in self.manifest.files:
            out.line(f"  {file.role}  {file.path}  sha256 {file.sha256}  {_VOUCHED[file.digest_from]}")
            if file.original is not None and file.original.path is not None:
                out.line(f"  {file.role} original  {file.original.path}  sha256 {file.original.sha256}")
            out.detail(f"  {file.role} from {file.source}{f' at {file.revision}' if file.revision else ''}")
        for role in self.manifest.missing:
            out.line(f"  {role}  missing: no source has it")
        sys.stdout.flush()


class _Pulls:
    """Pulls one reference after the other; one that fails does not stop the rest."""

    def __init__(self, catalogue: Catalogue, out: Output, options: Mapping[str, Any]) -> None:
        self.catalogue, self.out, self.options = catalogue, out, options
        self.outcomes: list[_Outcome] = []

    def run(self, references: Sequence[str]) -> int:
        """Pull all and show what became of them; returns the exit code of the first that failed."""
        code = 0
        for reference in references:
            try:
                outcome = self._pull(reference)
            except KeyboardInterrupt:
                self.out.error("interrupted", "what was downloaded is kept; the same command resumes")
                return ExitCode.INTERRUPTED
            except ZooError as error:
                if len(references) == 1:
                    raise
                self._report(reference, error)
                code = code or error.exit_code
            else:
                self.outcomes.append(outcome)
                outcome.show(self.out)
            finally:
                # A skipped card may be why a reference is unknown.
                self.out.warnings(self.catalogue.warnings)
        return code

    def _pull(self, reference: str) -> _Outcome:
        from zoo.catalogue import state_of
        from zoo.store.pull import pull
        from zoo_cli.transfers import TransferView

        card, variant, session = self._resolve(reference)
        name, options = f"{card.method}:{variant.name}", self.options
        built_in = state_of(card, variant) == "built-in"
        if built_in and options["given"]:
            raise InvalidInput(
                f"{name} is built in: nothing is pulled, also not from a file",
                f"To use a file of your own: zoo sample {name} --weights FILE",
            )
        with TransferView(self.out, name) as view:
            manifest = pull(
                reference,
                given=given_files(options["given"], variant, name),
                accept_licence=_answer(options["accept_licence"], self.out),
                keep_original=options["keep_original"],
                accept_change=options["accept_change"],
                connections=options["connections"],
                check_space=not options["no_space_check"],
                watcher=view,
                session=session,
            )
        how: Literal["pulled", "already here", "built in"] = "pulled" if view.was_needed else "already here"
        return _Outcome(manifest, "built in" if built_in else how, card.origin)

    def _resolve(self, reference: str) -> tuple[Card, Variant, Session | None]:
        """By the cards; only where none answers, by a session, for which plugins are imported."""
        try:
            return *self.catalogue.resolve(reference), None
        except NotFound:
            from zoo.session import Session

            session = Session(self.catalogue)
            return *session.resolve(reference), session

    def _report(self, reference: str, error: ZooError) -> None:
        if os.environ.get("ZOO_DEBUG"):
            import traceback

            traceback.print_exc()
        message = error.message if reference in error.message else f"{reference}: {error.message}"
        self.out.error(message, error.hint)


def given_files(values: Sequence[str], variant: Variant, name: str) -> dict[str, Path]:
    """The files of `--from [ROLE=]FILE` by role; raises `InvalidInput` where a role or file is not clear."""
    roles = [file.role for file in variant.files]
    if not roles:
        return {}  # Nobody published weights: the pull says so, and what to do.
    found: dict[str, Path] = {}
    for value in values:
        role, equals, text = value.partition("=")
        if not equals or (role not in roles and os.path.exists(os.path.expanduser(value))):
            role, text = _only_role(roles, value, name), value
        elif role not in roles:
            raise InvalidInput(f"--from {value}: {name} has no file of role '{role}'", _roles(roles))
        if role in found:
            raise InvalidInput(f"--from gives the file of role '{role}' twice", _roles(roles))
        # The shell leaves the sign for the home folder alone where it does not begin the word.
        found[role] = Path(os.path.expanduser(text))
        if not found[role].is_file():
            what = "is not a file" if found[role].exists() else "there is no such file"
            raise InvalidInput(f"--from {value}: {what}", f"zoo pull {name} --from FILE takes its path.")
    return found


def _only_role(roles: Sequence[str], value: str, name: str) -> str:
    if len(roles) == 1:
        return roles[0]
    if "model" in roles:
        return "model"
    raise InvalidInput(f"--from {value}: which file of {name} is it?", _roles(roles))


def _roles(roles: Sequence[str]) -> str:
    return f"Its roles: {', '.join(roles)}. Such as --from {roles[0]}=FILE"


def _answer(accepted: bool, out: Output) -> Callable[[Terms], bool]:
    """What answers for terms that were not accepted before: the option, or the user."""

    def answer(terms: Terms) -> bool:
        asking = out.mode == "text" and sys.stdin.isatty() and sys.stderr.isatty()
        if not (accepted or asking):
            return False
        out.note(f"The weights of {terms.reference} come with terms: {terms.text}")
        if terms.url:
            out.note(f"  {terms.url}")
        if accepted:
            out.note("Accepted by --accept-licence.")
            return True
        print("Accept? [y/N] ", end="", file=sys.stderr, flush=True)
        reply = sys.stdin.readline()
        if not reply.endswith("\n"):
            print(file=sys.stderr)
        return reply.strip().lower() in ("y", "yes")

    return answer


def _file(file: Stored) -> dict[str, Any]:
    original = file.original
    return {
        "role": file.role,
        "path": str(file.path),
        "sha256": file.sha256,
        "size": file.size,
        "verified": file.verified,
        "digest_from": file.digest_from,
        "source": file.source,
        "revision": file.revision,
        "original": None
        if original is None
        else {
            "sha256": original.sha256,
            "size": original.size,
            "path": None if original.path is None else str(original.path),
        },
    }
