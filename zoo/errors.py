"""Every error a user can cause or meet, with the exit code the command line gives it.

A message says what happened and what was expected; a hint says what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `zoo` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CHECKSUM = 4
    LICENCE = 5
    PLUGIN = 6
    DOES_NOT_FIT = 7
    INTERRUPTED = 130


class ZooError(Exception):
    """Base of all expected errors."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(ZooError):
    """An argument is outside what is accepted."""

    exit_code = ExitCode.USAGE


class InvalidReference(InvalidInput):
    """A text is not of the form method[:variant][@revision]."""


class NotFound(ZooError):
    """A reference names nothing that is known."""

    exit_code = ExitCode.NOT_FOUND


class NotPulled(ZooError):
    """The variant is known, its weights are not on this machine."""

    exit_code = ExitCode.NOT_FOUND


class CardError(ZooError):
    """A card is damaged: the message names file, table and key."""


class WeightsError(ZooError):
    """A weights file does not fit the architecture, or cannot be read."""


class ChecksumError(ZooError):
    """A file's content is not what the card promises."""

    exit_code = ExitCode.CHECKSUM


class NetworkError(ZooError):
    """A server could not be reached, or did not answer as it should."""


class LicenceError(ZooError):
    """A licence has to be accepted, or a login is missing."""

    exit_code = ExitCode.LICENCE


class PluginError(ZooError):
    """A plugin failed, or one of its optional dependencies is missing."""

    exit_code = ExitCode.PLUGIN


class DoesNotFit(ZooError):
    """Not enough disk or memory."""

    exit_code = ExitCode.DOES_NOT_FIT


class OutputExists(ZooError):
    """A file would have been overwritten."""


class OutputNotWritable(ZooError):
    """An output file or folder cannot be written."""


def near(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that `name` may have meant, best first."""
    folded = {candidate.lower(): candidate for candidate in known}
    return [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=count, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that lists near matches, or nothing."""
    matches = near(name, known)
    return f"Did you mean: {', '.join(matches)}?" if matches else ""
