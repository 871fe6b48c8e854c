"""Which plugins are installed, found without importing any of them (nor pluggy).

In-tree plugins stand in `BUILTIN`; others come by entry point of the group `zoo.plugins`, whose name is the
method.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions, entry_points

from zoo.version import __version__

GROUP = "zoo.plugins"

#: In-tree plugins: method `x` is the package `zoo_x` under plugins/.
BUILTIN = ("diffusion", "illume", "layerdiff", "mdm", "shapes", "tarflow")


@dataclass(frozen=True)
class Installed:
    """A plugin that could be loaded."""

    name: str
    module: str
    distribution: str
    version: str
    enabled: bool


def enabled(name: str) -> bool:
    """Whether `$ZOO_PLUGINS` allows a plugin: unset = all, empty = none, a list = only those."""
    allowed = os.environ.get("ZOO_PLUGINS")
    return allowed is None or name in [part.strip() for part in allowed.split(",")]


def installed() -> list[Installed]:
    """Every plugin there is, in-tree first, then by name; without importing any."""
    found = [Installed(name, f"zoo_{name}", "zoo", __version__, enabled(name)) for name in BUILTIN]
    for entry in entries(GROUP):
        found.append(Installed(entry.name, entry.value, *distribution_of(entry), enabled(entry.name)))
    return found


def entries(group: str) -> list[EntryPoint]:
    """Entry points of a group by name and distribution; a distribution with damaged metadata is left out."""
    try:
        found = list(entry_points(group=group))
    except Exception:
        # One damaged entry_points.txt makes the standard library refuse all of them.
        found = _readable_entries(group)
    return sorted(found, key=lambda entry: (entry.name, distribution_of(entry)[0]))


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point belongs to."""
    try:
        return (str(entry.dist.name), str(entry.dist.version)) if entry.dist else ("unknown", "unknown")
    except Exception:
        return "unknown", "unknown"


def _readable_entries(group: str) -> list[EntryPoint]:
    found = []
    for distribution in distributions():
        try:
            found += [entry for entry in distribution.entry_points if entry.group == group]
        except Exception:
            continue
    return found
