"""Checking plugins in a process of their own, which they may crash, end or block without harm to this one.

This module imports neither pluggy nor a plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zoo.discovery import Installed, installed

#: Seconds that the plugins may take before they are checked one by one.
TIMEOUT = 60.0

_CHILD = "import sys; from zoo.plugincheck import child; child(*sys.argv[1:])"


def check_plugins(timeout: float = TIMEOUT) -> list[dict[str, str | None]]:
    """Load every plugin elsewhere: rows of name, distribution, version, status and error.

    The status is "ok", "failed" or "disabled"; the error is None unless it failed.
    """
    rows, problem = _in_child("check", "", timeout)
    if not problem:
        return list(rows)
    checked: list[dict[str, str | None]] = []
    for name in dict.fromkeys(plugin.name for plugin in installed()):
        rows, problem = _in_child("check", name, timeout)
        checked += rows if not problem else [_row(p, problem) for p in installed() if p.name == name]
    return checked


def ask_doctor(timeout: float = TIMEOUT) -> list[tuple[str, str, str]]:
    """What the plugins' `doctor` hooks report, as (status, text, hint). A failing hook is a finding too."""
    findings, problem = _in_child("doctor", "", timeout)
    if not problem:
        return [(status, text, hint) for status, text, hint in findings]
    answers: list[tuple[str, str, str]] = []
    for name in dict.fromkeys(plugin.name for plugin in installed() if plugin.enabled):
        findings, problem = _in_child("doctor", name, timeout)
        failed = [("fail", f"plugin '{name}': doctor: {problem}", "")]
        answers += failed if problem else [(status, text, hint) for status, text, hint in findings]
    return answers


def child(what: str, only: str, path: str) -> None:
    """The other process: check the plugins, or only one, write JSON to `path` and end at once."""
    from zoo.plugins import check

    answer = check(only or None) if what == "check" else _doctor(only)
    Path(path).write_text(json.dumps(answer), encoding="utf-8")
    # Whatever a plugin left running or registered for the end of the interpreter shall not run.
    os._exit(0)


def _doctor(only: str) -> list[tuple[str, str, str]]:
    from zoo.errors import PluginError
    from zoo.plugins import Plugins

    plugins = Plugins()
    if only:
        with contextlib.suppress(PluginError):
            plugins.load(only)
    else:
        plugins.load_all()
    findings: list[tuple[str, str, str]] = []

    def report(status: str, text: str, hint: str = "") -> None:
        if status not in ("ok", "warn", "fail"):
            raise ValueError(f"status is {status!r}, expected 'ok', 'warn' or 'fail'")
        findings.append((status, str(text), str(hint)))

    for _ in plugins.each("doctor", report=report):
        pass
    return findings + [("fail", warning, "") for warning in plugins.warnings]


def _in_child(what: str, only: str, timeout: float) -> tuple[Any, str]:
    """The answer of another process, and "" or the way it ended without one."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        answer = Path(folder) / "answer.json"
        # -P: the current folder may hold anything, and is not where this process imports from either.
        command = [sys.executable, "-P", "-c", _CHILD, what, only, str(answer)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("ZOO_TRACE") else subprocess.DEVNULL,
            env=_environment(),
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None, f"did not finish within {timeout:g} s"
        finally:
            process.kill()
            process.wait()
        try:
            return json.loads(answer.read_text(encoding="utf-8")), ""
        except (OSError, ValueError):
            return None, _ending(code)


def _environment() -> dict[str, str]:
    """This process's environment with its import path; failures are recorded there, never raised."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "ZOO_STRICT": ""}


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended the interpreter with exit status {code}"
    with contextlib.suppress(ValueError):
        return f"crashed the interpreter ({signal.Signals(-code).name})"
    return f"crashed the interpreter (signal {-code})"


def _row(plugin: Installed, problem: str) -> dict[str, str | None]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": "failed" if plugin.enabled else "disabled",
        "error": problem if plugin.enabled else None,
    }
