"""Loading plugins, one at a time and when needed, so that a broken one breaks nothing else."""

from __future__ import annotations

import contextlib
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

    def __init__(self, warnings: list[str] | None = None) -> None:
        self.registry = Registry()
        self.failures: dict[str, Failure] = {}
        self.warnings: list[str] = [] if warnings is None else warnings
        self._available: dict[str, Installed] = {}
        for plugin in installed():
            if plugin.name.lower() in self._available:
                owner = self._available[plugin.name.lower()].distribution
                self._fail(plugin, PluginError(f"the name '{plugin.name}' is taken by {owner}"))
            else:
                self._available[plugin.name.lower()] = plugin
        self._loaded: dict[str, Any] = {}
        self._manager = pluggy.PluginManager("zoo")
        self._manager.add_hookspecs(hookspecs)

    def names(self) -> list[str]:
        """Names of all plugins that are installed, in-tree first."""
        return [plugin.name for plugin in self._available.values()]

    def enabled(self) -> list[str]:
        """Names of the installed plugins that `$ZOO_PLUGINS` allows."""
        return [plugin.name for plugin in self._available.values() if plugin.enabled]

    def load(self, name: str) -> bool:
        """Load a plugin if it is there; False if it is not installed. Raises `PluginError` when it fails."""
        plugin = self._available.get(name.lower())
        if plugin is None:
            return False
        if plugin.name in self._loaded:
            return True
        if not plugin.enabled:
            raise PluginError(f"plugin '{name}' is disabled", "Unset ZOO_PLUGINS, or leave out --no-plugins.")
        if plugin.name not in self.failures:
            self._load(plugin)
        failure = self.failures.get(plugin.name)
        if failure is not None:
            hint = failure.hint or "ZOO_DEBUG=1 shows the traceback; zoo plugins lists every plugin."
            text = (
                f"plugin '{failure.name}' ({failure.distribution} {failure.version}) failed: {failure.error}"
            )
            raise PluginError(text, hint) from failure.cause
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
                answer = self._call(hook, implementation, arguments)
            except (Exception, SystemExit) as error:
                self.reject(name, hook, error)
            else:
                yield name, answer

    def reject(self, name: str, hook: str, error: BaseException) -> None:
        """Record that a plugin's hook failed, or gave an answer that cannot be used, and warn."""
        self._fail(self._available[name.lower()], error, f"{hook}: ")
        self.warnings.append(f"plugin '{name}' failed in {hook}: {describe(error)}")

    def implements(self, hook: str) -> bool:
        """Whether any loaded plugin implements a hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def _load(self, plugin: Installed) -> None:
        if plugin.name not in BUILTIN:
            # Names of in-tree plugins are theirs whoever asks first, so they register before any other does.
            for name in BUILTIN:
                builtin = self._available[name]
                if builtin.enabled and name not in self._loaded and name not in self.failures:
                    self._load(builtin)
        try:
            module = _imported(plugin.module)
            self._manager.register(module, name=plugin.name)
            self._check_hooks(module)
            self._register(plugin.name)
            self._loaded[plugin.name] = module
        except (Exception, SystemExit) as error:
            self.registry.remove_owner(plugin.name)
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            self._fail(plugin, error)

    def _check_hooks(self, module: Any) -> None:
        """Raise `PluginError` for a hook that does not exist: pluggy would never call it, and say nothing."""
        callers = self._manager.get_hookcallers(module) or []
        if not callers:
            raise PluginError("implements no hook: its functions need @zoo.hookimpl")
        known = [name for name in vars(self._manager.hook) if getattr(self._manager.hook, name).has_spec()]
        for caller in callers:
            if not caller.has_spec():
                raise PluginError(
                    f"there is no hook '{caller.name}'. {did_you_mean(caller.name, known)}".strip()
                )

    def _register(self, name: str) -> None:
        for hook, register in self.registry.callbacks(name).items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin_name == name:
                    self._call(hook, implementation, {"register": register})

    def _call(self, hook: str, implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> Any:
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"{hook} is a wrapper, which zoo does not call")
        given = [arguments[name] for name in implementation.argnames]
        trace = f"zoo: {implementation.plugin_name}: {hook}" if os.environ.get("ZOO_TRACE") else ""
        try:
            answer = implementation.function(*given)
        except (Exception, SystemExit) as error:
            if trace:
                print(f"{trace} raised {describe(error)}", file=sys.stderr)
            raise
        if trace:
            print(f"{trace} -> {answer!r}", file=sys.stderr)
        return answer

    def _fail(self, plugin: Installed, error: BaseException, where: str = "") -> None:
        problem, hint = where + describe(error), ""
        if isinstance(error, ModuleNotFoundError):
            text, hint = missing_package(plugin.name, error, plugin.distribution)
            problem = where + text.removeprefix(f"plugin '{plugin.name}' ")
        if os.environ.get("ZOO_STRICT"):
            raise PluginError(f"plugin '{plugin.name}' failed: {problem}", hint) from error
        key = plugin.name
        if self._available.get(key.lower()) is not plugin:
            key = f"{plugin.name} ({plugin.distribution})"
        self.failures[key] = Failure(plugin.name, plugin.distribution, plugin.version, problem, hint, error)


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


def check(only: str | None = None) -> list[dict[str, str | None]]:
    """Load every plugin, or `only` one, and tell how it went: name, distribution, version, status, error.

    Runs the plugins' code in this process; `zoo.plugincheck` does it in another one.
    """
    plugins = Plugins()
    if only is None:
        plugins.load_all()
    elif only in plugins.enabled():
        with contextlib.suppress(PluginError):
            plugins.load(only)
    failures = {(f.name, f.distribution): f.error for f in plugins.failures.values()}
    rows: list[dict[str, str | None]] = []
    for plugin in installed():
        if only is not None and plugin.name != only:
            continue
        error = failures.get((plugin.name, plugin.distribution)) if plugin.enabled else None
        status = "failed" if error else "ok" if plugin.enabled else "disabled"
        rows.append(
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": status,
                "error": error,
            }
        )
    return rows
