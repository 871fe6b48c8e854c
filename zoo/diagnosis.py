"""Checking an installation: what `zoo doctor` reports."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from zoo.errors import ZooError
from zoo.quantities import human_bytes

Status = Literal["ok", "warn", "fail"]

#: Packages without which zoo does not work, by the name that is imported.
NEEDED = ("numpy", "PIL", "safetensors", "huggingface_hub", "platformdirs")

#: Less room than this at the store cannot hold a full-size model.
LITTLE_DISK = 10 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    status: Status
    text: str
    hint: str = ""


def diagnose(timeout: float = 60.0) -> Iterator[Finding]:
    """Every finding, as it is made. A check that breaks down is a finding itself, and the others go on."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _torch,
        _store,
        _settings,
        _cards,
        lambda: _plugins(timeout),
        _extras,
        lambda: _hooks(timeout),
    )
    for check in checks:
        try:
            yield from check()
        except ZooError as error:
            yield Finding("fail", error.message, error.hint)
        except Exception as error:
            yield Finding("fail", f"{check.__name__.strip('_<>')}: {type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    yield Finding("ok", f"python {platform.python_version()} at {sys.executable}")
    yield Finding("ok", f"platform {platform.platform()}, {os.cpu_count()} processors")


def _packages() -> Iterator[Finding]:
    for name in NEEDED:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            yield Finding("fail", f"{name} cannot be imported: {error}", "pip install --force-reinstall zoo")
        else:
            yield Finding("ok", f"{name} {getattr(module, '__version__', '')}".rstrip())


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("fail", f"torch cannot be imported: {error}", "See https://pytorch.org/get-started")
        return
    yield Finding("ok", f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    yield from _devices()


def _devices() -> Iterator[Finding]:
    import torch

    from zoo.runtime.devices import available_memory, core_device, default_dtype, dtype_name

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    for name in names:
        device = torch.device(name)
        label = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
        free = human_bytes(available_memory(device))
        yield Finding("ok", f"device {name}{label}: {free} free, {dtype_name(default_dtype(None, device))}")
    if core_device() == "cpu":
        hint = "Small models run well on it; full-size ones take long."
        yield Finding("warn", "no accelerator was found, models run on the processor", hint)


def _store() -> Iterator[Finding]:
    from zoo.store.layout import home

    place = home()
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Finding(
            "fail", f"store {place}: {there} cannot be written", "Set ZOO_HOME to a folder that can."
        )
    else:
        free = shutil.disk_usage(there).free
        hint = "" if free >= LITTLE_DISK else "Set ZOO_HOME to a folder on a larger disk."
        yield Finding("warn" if hint else "ok", f"store {place}: {human_bytes(free)} free", hint)
    yield from _stored()


def _stored() -> Iterator[Finding]:
    """What the store holds: pulled models, and downloads that wait to be finished or removed."""
    from zoo.store.locate import gone, pulled_here
    from zoo.store.pruning import leftovers

    here = pulled_here()
    yield Finding("ok", f"pulled models: {len(here.manifests)}, {human_bytes(here.size)}")
    for entry in here.damaged:
        yield Finding("fail", entry.error.message, entry.error.hint)
    for manifest in here.manifests:
        for file in manifest.files:
            if not os.path.isfile(file.path):
                error = gone(manifest.reference, file.path)
                yield Finding("fail", error.message, error.hint)
    found = leftovers()
    parts = [item for item in found if item.kind == "part"]
    if parts:
        text = f"unfinished downloads: {len(parts)}, {human_bytes(sum(item.size for item in parts))}"
        yield Finding("ok", text, "zoo pull goes on with them; zoo prune removes them.")
    rest = [item for item in found if item.kind != "part" and item.kept is None]
    if rest:
        text = f"files that no model needs: {len(rest)}, {human_bytes(sum(item.size for item in rest))}"
        yield Finding("warn", text, "zoo prune")


def _settings() -> Iterator[Finding]:
    from zoo.settings import checked_value, load_settings

    settings = load_settings()
    yield Finding("ok", f"settings {settings.path}{'' if settings.values else ' (nothing is set)'}")
    for key, value in settings.values.items():
        try:
            checked_value(key, value)
        except ZooError as error:
            yield Finding("fail", f"setting {key} = {value}: {error.message}", f"zoo config unset {key}")


def _cards() -> Iterator[Finding]:
    from zoo.catalogue import list_models, load_catalogue, state_of

    catalogue = load_catalogue()
    models = list_models(catalogue)
    yield Finding("ok", f"cards: {len(catalogue.cards)} read, {len(models)} variants")
    for warning in catalogue.warnings:
        yield Finding("warn", warning)
    for card, variant, _ in models:
        if state_of(card, variant) == "built-in":
            yield from (
                _weights(f"{card.method}:{variant.name}", file, card.folder) for file in variant.files
            )


def _weights(reference: str, file: object, folder: Path) -> Finding:
    from zoo.cards import File

    assert isinstance(file, File)
    path = file.local(folder)
    assert path is not None  # what makes a variant built-in
    again = "Reinstall zoo: pip install --force-reinstall zoo"
    if not path.is_file():
        return Finding("fail", f"{reference}: {path} is missing", again)
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return Finding("fail", f"{reference}: {path} has {size} bytes, expected {file.size}", again)
    if file.sha256 is None:
        return Finding("warn", f"{reference}: {path.name} is there; its card gives no digest to check")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        return Finding("fail", f"{reference}: {path} has sha256 {digest}, expected {file.sha256}", again)
    return Finding("ok", f"{reference}: {path.name} is whole ({human_bytes(size)})")


def _plugins(timeout: float) -> Iterator[Finding]:
    from zoo.plugincheck import check_plugins

    for row in check_plugins(timeout):
        name = f"plugin {row['name']} ({row['distribution']} {row['version']})"
        if row["status"] == "ok":
            yield Finding("ok", name)
        elif row["status"] == "disabled":
            yield Finding("warn", f"{name} is disabled", "Unset ZOO_PLUGINS, or leave out --no-plugins.")
        else:
            yield Finding(
                "fail", f"{name}: {row['error']}", f"Update or remove it: pip uninstall {row['distribution']}"
            )


def _extras() -> Iterator[Finding]:
    """Packages that the extras of zoo bring, apart from those for working on zoo itself."""
    try:
        requirements = requires("zoo") or []
    except PackageNotFoundError:
        # A checkout that is not installed has no metadata.
        requirements = []
    for requirement in requirements:
        extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None or extra[1] in ("test", "dev"):
            continue
        try:
            yield Finding("ok", f"optional package {name[0]} {version(name[0])}, for {extra[1]}")
        except PackageNotFoundError:
            hint = f"pip install 'zoo[{extra[1]}]'"
            yield Finding("warn", f"optional package {name[0]} is not installed, for {extra[1]}", hint)


def _hooks(timeout: float) -> Iterator[Finding]:
    from zoo.plugincheck import ask_doctor

    statuses: dict[str, Status] = {"ok": "ok", "warn": "warn", "fail": "fail"}
    for status, text, hint in ask_doctor(timeout):
        yield Finding(statuses[status], text, hint)
