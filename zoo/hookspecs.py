"""The plugin contract: every hook that a plugin can implement.

A plugin implements any of these functions with `@zoo.hookimpl`, leaving out arguments that it does not need.
Each `register_*` hook receives a `register` callback; what is registered under "package.module:attribute" is
imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

if TYPE_CHECKING:
    from zoo.cards import Card
    from zoo.references import Reference
    from zoo.runtime.devices import DeviceRequest
    from zoo.runtime.model import FinishedRun

hookspec = pluggy.HookspecMarker("zoo")

#: "package.module:attribute", or the thing itself.
Target = str | Callable[..., Any]


class RegisterArchitecture(Protocol):
    """Makes an architecture known.

    `build(config)` returns an `nn.Module` on the current default device; `config` is a dataclass whose fields
    are the keys of a card's `config` table. `offers` names capabilities (`zoo.runtime.capabilities`).
    """

    def __call__(
        self, name: str, build: Target, *, config: Target, summary: str = "", offers: Sequence[str] = ()
    ) -> None: ...


class RegisterSampler(Protocol):
    """Makes a sampler known.

    `sample(loaded, batch, options, noise, on_step)` returns one artifact for each sample of the batch;
    `options` is a dataclass with a default for every field. `needs` names capabilities of the architecture.
    `makes` is the kind of its artifacts: "image", "layers", "text", or "package.module:Class", a dataclass of
    the plugin's own as `zoo.io.artifacts.Artifact` describes it, inline ones such as texts included; one that
    also has a class method `read(path)` can be replayed. With `part_prompts` the sampler reads
    `batch.part_prompts`: a text for each part of what it makes, such as the layers from back to front.
    `tasks` say what it is for, such as "image-to-text"; a request may name one of them. `images` are the
    roles of the pictures that it has to be given (`batch.images_of(role)`), "image" being the usual one, and
    `optional_images` of those that it may be given. `prompt` tells whether it reads one. What a request lacks
    or has too much is an error before anything is loaded.
    """

    def __call__(
        self,
        name: str,
        sample: Target,
        *,
        options: Target,
        tasks: Sequence[str] = (),
        needs: Sequence[str] = (),
        summary: str = "",
        makes: str = "image",
        part_prompts: bool = False,
        images: Sequence[str] = (),
        optional_images: Sequence[str] = (),
        prompt: Literal["none", "optional", "required"] = "optional",
    ) -> None: ...


class RegisterConverter(Protocol):
    """Makes a converter known: `convert(tensors, config)` from foreign names to ours, `export` back."""

    def __call__(
        self, name: str, convert: Target, *, export: Target | None = None, summary: str = ""
    ) -> None: ...


class RegisterRecipe(Protocol):
    """Makes a recipe known: `recipe()` returns an object as `zoo.training.recipe.Recipe` describes."""

    def __call__(self, name: str, recipe: Target, *, summary: str = "") -> None: ...


class Progress(Protocol):
    """Receives (bytes done, bytes in total or None) while a file is fetched."""

    def __call__(self, done: int, total: int | None) -> None: ...


class Report(Protocol):
    """Receives one finding: status "ok", "warn" or "fail", what was found, and what to do about it."""

    def __call__(self, status: str, text: str, hint: str = "") -> None: ...


@hookspec
def register_architectures(register: RegisterArchitecture) -> None:
    """Called once when the plugin is loaded: register the plugin's architectures."""


@hookspec
def register_weights(register: Callable[[Card], None]) -> None:
    """Called once when the plugin is loaded: register cards that are made by code. Static cards are files."""


@hookspec
def register_samplers(register: RegisterSampler) -> None:
    """Called once when the plugin is loaded: register the plugin's samplers."""


@hookspec
def register_converters(register: RegisterConverter) -> None:
    """Called once when the plugin is loaded: register checkpoint converters."""


@hookspec
def register_recipes(register: RegisterRecipe) -> None:
    """Called once when the plugin is loaded: register training recipes."""


@hookspec(firstresult=True)
def resolve_reference(reference: Reference) -> tuple[Card, str] | None:
    """Last chance for a reference that no card answers.

    Return a card and the name of its variant, or None to pass. The first answer wins.
    """


@hookspec(firstresult=True)
def fetch(source: str, destination: Path, progress: Progress) -> bool | None:
    """Called by `zoo pull` for a scheme that the core lacks: fetch the URI `source` into `destination`.

    The core has hf, https, http to this machine, and file. Return True when the file is complete, or None for
    a scheme that the plugin does not know. `destination` may hold what an interrupted call left there, to go
    on with. What is fetched is checked, converted and put in its place like any other file.
    """


@hookspec(firstresult=True)
def choose_device(request: DeviceRequest) -> str | None:
    """Name the torch device to run on, such as "cuda:1", or None to leave the choice to others.

    Asked only when the user named no device. The core chooses cuda, mps, cpu in this order.
    """


@hookspec
def doctor(report: Report) -> None:
    """Called by `zoo doctor`: report what the plugin depends on and whether it is there."""


@hookspec
def sample_finished(run: FinishedRun) -> None:
    """Called after a request was sampled. Observers only: a failure is a warning, never a lost sample."""
