"""`pull`: from a reference to a variant whose files lie on this machine, checked and ready to load.

The order is the guarantee: terms before the first byte, room for all files before the first byte, every file
complete and checked before it has a place, every place filled before the manifest that makes it count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cards import Card, Licence, Variant
from zoo.catalogue import load_catalogue, state_of
from zoo.errors import InvalidInput, NotFound, OutputNotWritable
from zoo.store.holdings import built_in_manifest, current_manifest
from zoo.store.layout import home
from zoo.store.licences import Terms, require
from zoo.store.locate import locate
from zoo.store.locks import variant_lock
from zoo.store.manifest import Manifest
from zoo.store.progress import Silent, Watcher

if TYPE_CHECKING:
    from zoo.session import Session
    from zoo.store.download.patience import Policy


def pull(
    reference: str,
    *,
    given: Mapping[str, Path] | None = None,
    accept_licence: bool | Callable[[Terms], bool] = False,
    keep_original: bool = False,
    accept_change: bool = False,
    repair: Collection[str] = (),
    connections: int | None = None,
    check_space: bool = True,
    watcher: Watcher | None = None,
    session: Session | None = None,
    policy: Policy | None = None,
) -> Manifest:
    """Bring the weights of a variant here: `pull("tarflow:afhq256", accept_licence=True)`.

    What is here already is not asked for again: a variant that was pulled costs no request. `given` maps
    roles to files fetched by hand, which are checked and converted like any other. `accept_licence` answers
    for terms that have to be accepted: yes, no, or a function that is shown them. `keep_original` keeps a
    PyTorch checkpoint beside the safetensors file it is converted to, unless it consists of several files.
    `accept_change` believes a file that differs from the one first pulled, where nobody publishes a digest.
    `repair` names roles to fetch again.

    An interrupted pull keeps what has arrived, and the same call goes on from there. Raises `NotFound`,
    `NotPulled` (nobody published the weights), `LicenceError`, `NetworkError`, `ChecksumError`,
    `DoesNotFit`, `WeightsError`, `PluginError` or `OutputNotWritable`.
    """
    watcher = watcher or Silent()
    card, variant = _resolve(reference, session)
    if state_of(card, variant) == "built-in":
        return built_in_manifest(card, variant)
    if not variant.files:
        locate(card, variant)  # Raises, and says what can be done without weights.
    fresh = bool(given or repair or accept_change)
    current = None if fresh else current_manifest(card, variant, watcher)
    if current is not None:
        return current
    from zoo.store.delivery import Delivery
    from zoo.store.download.patience import Policy
    from zoo.store.planning import Settings

    policy = policy or Policy()
    settings = Settings(
        given=_checked_roles(card, variant, given or {}),
        keep_original=keep_original,
        accept_change=accept_change,
        repair=frozenset(repair),
        check_space=check_space,
        policy=policy if connections is None else replace(policy, connections=connections),
    )
    with _store_errors():
        if variant.licence is not None and not variant.licence.accept:
            watcher.said(_terms_in_short(card, variant, variant.licence))
        require(card, variant, accept_licence)
        with variant_lock(card.method, variant.name, lambda: watcher.said(_waiting(card, variant))):
            # Another process may have pulled it while this one waited.
            current = None if fresh else current_manifest(card, variant, watcher)
            return current or Delivery(card, variant, settings, watcher, session).run()


def _resolve(reference: str, session: Session | None) -> tuple[Card, Variant]:
    """From the cards alone where they know the reference: a plugin is loaded only when they do not."""
    if session is not None:
        return session.resolve(reference)
    try:
        return load_catalogue().resolve(reference)
    except NotFound:
        from zoo.session import default_session

        return default_session().resolve(reference)


def _checked_roles(card: Card, variant: Variant, given: Mapping[str, Path]) -> Mapping[str, Path]:
    roles = [file.role for file in variant.files]
    unknown = [role for role in given if role not in roles]
    if unknown:
        raise InvalidInput(
            f"{card.method}:{variant.name} has no file of role '{unknown[0]}'",
            f"Its roles: {', '.join(roles)}",
        )
    return {role: Path(path) for role, path in given.items()}


def _terms_in_short(card: Card, variant: Variant, licence: Licence) -> str:
    return f"{card.method}:{variant.name}: licence {licence.weights} {licence.url or ''}".rstrip()


def _waiting(card: Card, variant: Variant) -> str:
    return f"{card.method}:{variant.name} is being pulled or removed by another process; waiting for it"


@contextmanager
def _store_errors() -> Iterator[None]:
    """A store that cannot be written is the user's to know, not a traceback."""
    try:
        yield
    except OSError as error:
        place = error.filename or home()
        raise OutputNotWritable(
            f"the store cannot be written: {place}: {(error.strerror or str(error)).lower()}",
            "Set ZOO_HOME to a folder that you may write to and that has room.",
        ) from error
