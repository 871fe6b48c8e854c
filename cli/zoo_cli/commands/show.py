"""`zoo show`: everything a card says about a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options

if TYPE_CHECKING:
    from zoo.cards import Card, Variant

#: More class names than this would push everything else off the screen.
MOST_CLASSES = 60

#: Characters of a line of settings: what the narrowest usual terminal has.
LINE = 80


@click.command(short_help="Show everything a card says about a model.")
@reference_argument()
@output_options
def command(reference: str, out: Output) -> None:
    """Show what is known about a model: paper, code, architecture, sampler, files, licence and figures.

    Of a pulled model also where its files lie on this machine, and who vouched for their content.

    REF is method[:variant]; a bare method means its default variant. What the card does not say is unknown.

    \b
    Examples:
      zoo show tarflow
      zoo show tarflow:afhq256
      zoo show tarflow:shapes --json
    """
    from zoo.catalogue import load_catalogue
    from zoo.describe import details
    from zoo.store.locate import resolved

    catalogue = load_catalogue()
    try:
        card, variant = resolved(reference, catalogue)
    finally:
        # A skipped card may be why the reference is unknown.
        out.warnings(catalogue.warnings)
    document = details(catalogue, card, variant)
    out.result(document, lambda: _print(document, out), quiet=[document["reference"]])
    _next_step(card, variant, out)


def _next_step(card: Card, variant: Variant, out: Output) -> None:
    from zoo.errors import NotPulled, ZooError
    from zoo.store.locate import locate

    try:
        locate(card, variant)
    except NotPulled as error:
        out.hint(error.hint)
    except ZooError as error:
        out.warning(error.message)
        out.hint(error.hint)
    else:
        out.hint(f"zoo sample {card.method}:{variant.name}")


def _print(document: Mapping[str, Any], out: Output) -> None:
    out.line(f"{document['reference']}  {document['title']}: {document['summary']}")
    out.line()
    for label, value in _facts(document):
        _field(label, value, out)
    for heading, lines in _sections(document):
        if lines:
            out.line()
            out.line(heading)
            for line in lines:
                out.line(f"  {line}")


def _facts(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    from zoo.quantities import human_bytes, human_count

    size, params, licence = document["size"], document["params"], document["licence"]
    return [
        ("state", document["state"]),
        ("method", f"{document['method']}: {document['method_summary']}"),
        ("tasks", ", ".join(document["tasks"])),
        ("tags", ", ".join(document["tags"])),
        ("paper", _paper(document["paper"])),
        ("code", _code(document["code"])),
        ("licence", _licence(licence)),
        ("parameters", None if params is None else f"{params} ({human_count(params)})"),
        ("size", None if size is None else f"{size} bytes ({human_bytes(size)})"),
        ("dtype", document["dtype"]),
        ("classes", _classes(document["classes"])),
        ("captions", _captions(document["captions"])),
        ("recipe", document["recipe"]),
        ("aliases", ", ".join(document["aliases"])),
        ("notes", document["notes"]),
        ("method notes", document["method_notes"]),
        ("card", document["card"] or f"made by plugin '{document['origin']}'"),
        ("overrides", document["overrides"]),
    ]


def _sections(document: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    sampler, parts, tasks = document["sampler"], document["components"], document["task_samplers"]
    return [
        (f"architecture {document['architecture']}", _settings(document["config"]) or ["no settings"]),
        *((f"{role}: {part['architecture']}", _component(part)) for role, part in parts.items()),
        (f"sampler {sampler.get('name')}", _defaults(sampler) if sampler else []),
        *((f"task {task}: sampler {its['name']}", _defaults(its)) for task, its in tasks.items()),
        ("files", [line for file in document["files"] for line in _file(file)]),
        ("on this machine", _pulled(document["pulled"])),
        ("metrics", [f"{m['name']}: {m['value']:g}  ({m['source']})" for m in document["metrics"]]),
    ]


def _field(label: str, value: object, out: Output) -> None:
    if value:
        out.line(f"{label:<13} {value}")


def _paper(paper: Mapping[str, Any] | None) -> str | None:
    if paper is None:
        return None
    year = f" ({paper['year']})" if paper["year"] else ""
    where = f"https://arxiv.org/abs/{paper['arxiv']}" if paper["arxiv"] else paper["url"] or ""
    return f"{paper['title']}{year} {where}".rstrip()


def _code(code: Mapping[str, Any] | None) -> str | None:
    if code is None:
        return None
    revision = f" at {code['revision']}" if code["revision"] else ""
    return f"{code['url']}{revision}, licence: {code['licence'] or 'unknown'}"


def _licence(licence: Mapping[str, Any] | None) -> str:
    if licence is None:
        return "unknown"
    text = f"{licence['weights']} {licence['url'] or ''}".rstrip()
    return f"{text} (has to be accepted)" if licence["accept"] else text


def _classes(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_CLASSES])
    return f"{len(names)}: {shown}{', ...' if len(names) > MOST_CLASSES else ''}" if names else ""


def _captions(world: str | None) -> str | None:
    return f"prompts follow the captions of the {world} world" if world else None


def _defaults(sampler: Mapping[str, Any]) -> list[str]:
    """The options that a card sets for a sampler."""
    return _settings({key: value for key, value in sampler.items() if key != "name"}) or ["no defaults"]


def _component(component: Mapping[str, Any]) -> list[str]:
    files, dtype = component["files"], component["dtype"]
    made = (
        f"made of the file{'s' if len(files) > 1 else ''} {', '.join(files)}"
        if files
        else "made without files"
    )
    facts = [f"runs in {dtype}"] if dtype else []
    facts += ["made only for requests that use it"] if component["optional"] else []
    return [made, *facts, *_settings(component["config"])]


def _settings(values: Mapping[str, Any], room: int = LINE - 2, path: str = "") -> list[str]:
    """Settings as TOML: a small table stands in a line, another one as [path.name] behind everything else."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in values.items():
        key = _key(name)
        line = f"{key} = {_literal(value)}"
        if isinstance(value, Mapping) and (len(line) > room or _is_nested(value)):
            body = _settings(value, room - 2, f"{path}{key}.")
            tables += [f"[{path}{key}]", *(f"  {line}" for line in body)]
        elif isinstance(value, (list, tuple)) and len(line) > room:
            lines += [f"{key} = [", *_filled(map(_literal, value), room), "]"]
        else:
            lines.append(line)
    return lines + tables


def _is_nested(table: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in table.values())


def _filled(items: Iterable[str], room: int) -> list[str]:
    """Items of a list in as few lines as possible; never broken within an item, as at a space of a text."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= room:
            lines[-1] += f" {item},"
        else:
            lines.append(f"  {item},")
    return lines


def _literal(value: object) -> str:
    """A value as TOML writes it. What only a card made by code can hold, such as None, is shown as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_literal(inner)}" for key, inner in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)


def _key(name: object) -> str:
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else _quoted(str(name))


def _quoted(text: str) -> str:
    """A basic string of TOML, which escapes what JSON does and DEL; C1 too, which no terminal is given."""
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", escaped)


def _file(file: Mapping[str, Any]) -> list[str]:
    size = "size unknown" if file["size"] is None else f"{file['size']} bytes"
    converter = f", converter {file['converter']}" if file["converter"] else ""
    return [
        f"{file['role']}: {file['format']}, {size}{converter}",
        *(f"  source {source}" for source in file["source"]),
        f"  sha256 {file['sha256'] or 'unknown'}",
    ]


def _pulled(pulled: Mapping[str, Any] | None) -> list[str]:
    """Where the files of a pulled variant lie, and who vouched for them."""
    if pulled is None:
        return []
    lines = [f"pulled on {pulled['at'][:10]} by zoo {pulled['zoo']}"]
    if pulled["licence_accepted"]:
        lines.append(f"its licence was accepted on {pulled['licence_accepted'][:10]}")
    for file in pulled["files"]:
        lines += [
            f"{file['role']}: {file['path']}",
            f"  {file['size']} bytes, sha256 {file['sha256']}",
            f"  {_vouched(file, pulled['at'])}",
        ]
        original = file["original"]
        if original and original["path"]:
            lines.append(f"  its download was kept: {original['path']}, {original['size']} bytes")
        if file["shared"]:
            lines.append("  in the Hugging Face cache, where it lay before: zoo rm leaves it there")
    return lines


def _vouched(file: Mapping[str, Any], pulled: str) -> str:
    if file["verified"]:
        return f"verified: what was downloaded has the digest that the {file['digest_from']} gives"
    since = file["first_pulled"] or pulled
    return f"unverified: first pulled on {since[:10]}, nobody publishes a digest"
