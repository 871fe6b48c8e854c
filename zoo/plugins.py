"""Loading plugins, one at a time, so that a broken one breaks nothing else. Nothing is imported before it is needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pluggy

from zoo import hookspecs
from zoo.discovery import BUILTIN as BUILTIN
from zoo.discovery import GROUP as GROUP
from zoo.discovery import Installed as Installed
from zoo.discovery import enabled as enabled
from zoo.discovery import installed as installed
from zoo.errors import PluginError, did_you_mean
from zoo.registry import Registry, missing_package


@dataclass(frozen=True)
class Failure:
    """A plugin that could not be used, and why."""

    name: str
    distribution: str
    version: str
    error: str
    hint: str = ""
    cause: BaseException | None = field(default=None, compare=False, repr=False)


class Plugins:
    """The plugins of one session: what they registered, and what failed."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.failures: dict[str, Failure] = {}
        self.warnings: list[str] = []
        self._available: dict[str, Installed] = {}
        for plugin in installed():
            if plugin.name in self._available:
                self._fail(plugin, f"the name '{plugin.name}' is taken by {self._available[plugin.name].distribution}")
            else:
                self._available[plugin.name] = plugin
        self._loaded: dict[str, Any] = {}
        self._manager = pluggy.PluginManager("zoo")
        self._manager.add_hookspecs(hookspecs)

    def names(self) -> list[str]:
        """Names of all plugins that are installed, in-tree first."""
        return list(self._available)

    def load(self, name: str) -> bool:
        """Load one plugin if it is there. False when it is not installed; raises `PluginError` when it fails."""
        plugin = self._available.get(name)
        if plugin is None:
            return False
        if name in self._loaded:
            return True
        if not plugin.enabled:
            raise PluginError(f"plugin '{name}' is disabled", "Unset ZOO_PLUGINS, or leave out --no-plugins.")
        if name not in self.failures:
            self._load(plugin)
        failure = self.failures.get(name)
        if failure is not None:
            hint = failure.hint or "ZOO_DEBUG=1 shows the traceback; zoo plugins lists every plugin."
            raise PluginError(f"plugin '{name}' ({failure.distribution} {failure.version}) failed: {failure.error}", hint)
        return True

    def load_all(self) -> None:
        """Load every enabled plugin; failures are recorded."""
        for plugin in self._available.values():
            if plugin.enabled and plugin.name not in self._loaded and plugin.name not in self.failures:
                self._load(plugin)

    def first(self, hook: str, **arguments: Any) -> Any:
        """The first answer that is not None, or None. A plugin that raises is recorded and passed over."""
        return next((answer for _, answer in self.each(hook, **arguments) if answer is not None), None)

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call a hook of the loaded plugins one by one: (plugin, answer), latest plugin first."""
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            try:
                yield name, self._call(hook, implementation, arguments)
            except Exception as error:
                self._fail(self._available[name], f"{hook}: {describe(error)}", error)
                self.warnings.append(f"plugin '{name}' failed in {hook}: {describe(error)}")

    def _load(self, plugin: Installed) -> None:
        try:
            module = _imported(plugin.module)
            self._manager.register(module, name=plugin.name)
            self._register(plugin.name)
            self._loaded[plugin.name] = module
        except (Exception, SystemExit) as error:
            self.registry.remove_owner(plugin.name)
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            self._fail(plugin, describe(error), error)

    def _register(self, name: str) -> None:
        for hook, register in self.registry.callbacks(name).items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin_name == name:
                    self._call(hook, implementation, {"register": register})

    def _call(self, hook: str, implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> Any:
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"{hook} is a wrapper, which zoo does not call")
        answer = implementation.function(*(arguments[name] for name in implementation.argnames))
        if os.environ.get("ZOO_TRACE"):
            print(f"zoo: {implementation.plugin_name}: {hook} -> {answer!r}", file=sys.stderr)
        return answer

    def _fail(self, plugin: Installed, problem: str, error: BaseException | None = None) -> None:
        if os.environ.get("ZOO_STRICT") and error is not None:
            raise error
        hint = missing_package(plugin.name, error)[1] if isinstance(error, ModuleNotFoundError) else ""
        key = plugin.name
        if key in self.failures or (key in self._available and self._available[key] is not plugin):
            key = f"{plugin.name} ({plugin.distribution})"
        self.failures[key] = Failure(plugin.name, plugin.distribution, plugin.version, problem, hint)


def _imported(module: str) -> Any:
    path, _, attribute = module.partition(":")
    imported = importlib.import_module(path)
    return getattr(imported, attribute) if attribute else imported


def describe(error: BaseException) -> str:
    """One line for an error: its type and text."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    if isinstance(error, PluginError):
        return error.message
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check() -> list[dict[str, str | None]]:
    """Load everything and tell how it went: name, distribution, version, status, error."""
    plugins = Plugins()
    plugins.load_all()
    failures = list(plugins.failures.values())
    rows: list[dict[str, str | None]] = []
    for plugin in installed():
        failure = next((f for f in failures if f.name == plugin.name and f.distribution == plugin.distribution), None)
        status = "failed" if failure else "ok" if plugin.enabled else "disabled"
        rows.append(
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": status if plugin.enabled else "disabled",
                "error": failure.error if failure and plugin.enabled else None,
            }
        )
    return rows
