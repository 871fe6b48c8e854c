"""The Hugging Face hub: what it knows of a file, and the cache that is shared with huggingface_hub.

The library is used for metadata, tokens and xet. The bytes are fetched by the downloader, because the
library begins a file anew after each failure. Nothing here imports it before a request has to be made.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

from zoo.errors import LicenceError, NetworkError, PluginError, WeightsError
from zoo.store.hub.address import COMMIT, DEFAULT_REVISION, HubAddress, endpoint, parse_hub
from zoo.store.hub.cache import (
    CachedFile,
    HubFile,
    cache_folder,
    digests,
    find_cached,
    is_leftover,
    is_on,
    leftovers,
    part_path,
    repository_folder,
)
from zoo.store.hub.errors import offline_error, pause_before_retry, translated
from zoo.store.hub.publishing import link_file, publish_file
from zoo.store.hub.removal import remove_cached
from zoo.version import __version__

__all__ = [
    "CachedFile",
    "HubAddress",
    "HubFile",
    "cache_folder",
    "describe_file",
    "download_with_xet",
    "endpoint",
    "find_cached",
    "leftovers",
    "link_file",
    "offline",
    "parse_hub",
    "part_path",
    "publish_file",
    "remove_cached",
    "token",
]

#: Switches that forbid requests: ours, and that of huggingface_hub.
OFFLINE_SWITCHES = ("ZOO_OFFLINE", "HF_HUB_OFFLINE")

ATTEMPTS = 3

#: Seconds that a server may ask to wait before the next attempt; one that asks for more is not asked again.
LONGEST_PAUSE = 30.0

_ETAG = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}")


def offline() -> str | None:
    """The name of the switch that forbids requests; None while they are allowed."""
    return next((switch for switch in OFFLINE_SWITCHES if is_on(switch)), None)


def token() -> str | None:
    """The token to send to the hub: `$HF_TOKEN`, else that of `hf auth login`; None where there is none.

    Also None while `$HF_HUB_DISABLE_IMPLICIT_TOKEN` is on. Raises `LicenceError` when it cannot be read.
    """
    if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    from huggingface_hub import get_token

    try:
        found = get_token()
    except Exception as error:
        raise LicenceError(f"the token for the hub cannot be read: {error}", "hf auth login") from error
    if found is not None and not re.fullmatch(r"[!-~]+", found):
        raise LicenceError("the token for the hub holds characters that no token has", "hf auth login")
    return found


def describe_file(address: HubAddress, revision: str | None = None, timeout: float = 10.0) -> HubFile:
    """Ask the hub for a file's commit, size and digest; `timeout` is in seconds for each of the attempts.

    Raises `LicenceError` (a login or a permission is missing), `NotFound` (no such repository, revision or
    file), `NetworkError` (no answer, or requests are forbidden) and `WeightsError` (an answer that would name
    places outside of the cache, or another commit than the one asked for).
    """
    address = address.at(revision or address.revision or DEFAULT_REVISION)
    switch = offline()
    if switch is not None:
        raise offline_error(address, switch)
    own = token()
    metadata = _ask(address, own, timeout)
    commit, etag = _checked_commit(address, metadata.commit_hash), _checked_etag(address, metadata.etag)
    size = metadata.size if metadata.size is None or metadata.size >= 0 else None
    sha256, git_sha1 = digests(etag)
    folder = repository_folder(address)
    return HubFile(
        address=address,
        revision=address.revision or DEFAULT_REVISION,
        commit=commit,
        size=size,
        etag=etag,
        sha256=sha256,
        git_sha1=git_sha1,
        url=address.url(commit),
        headers=_headers(own),
        blob=folder / "blobs" / etag,
        pointer=folder / "snapshots" / commit / address.path,
        only_xet=_is_only_xet(metadata, size),
    )


def download_with_xet(file: HubFile, progress: Callable[[int, int | None], None]) -> Path:
    """Let huggingface_hub fetch a file that only xet delivers; returns its path in the cache.

    `progress` receives the bytes that are here, and the size. Nothing is resumed; a content that is there
    already is replaced. Raises `PluginError` where xet is missing, and what `describe_file` raises.
    """
    switch = offline()
    if switch is not None:
        raise offline_error(file.address, switch)
    _require_xet(file)
    from huggingface_hub import hf_hub_download

    own = token()
    options: dict[str, Any] = {}
    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        options["tqdm_class"] = _reporting_bar(progress, file.size)
    try:
        hf_hub_download(
            file.address.repository,
            file.address.path,
            revision=file.commit,
            cache_dir=file.folder.parent,
            endpoint=endpoint(),
            token=own or False,
            force_download=file.blob.exists(),
            library_name="zoo",
            library_version=__version__,
            **options,
        )
    except Exception as error:
        raise translated(error, file.address, own) from error
    pointer = link_file(file)
    size = pointer.stat().st_size
    progress(size, size)
    return pointer


def _ask(address: HubAddress, own: str | None, timeout: float) -> Any:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(
        address.repository, address.path, revision=address.revision or DEFAULT_REVISION, endpoint=endpoint()
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return get_hf_file_metadata(
                url,
                token=own or False,
                timeout=timeout,
                library_name="zoo",
                library_version=__version__,
                endpoint=endpoint(),
            )
        except Exception as error:  # The library's own, those of its HTTP client, those of the system.
            pause = pause_before_retry(error, attempt)
            if pause is None or pause > LONGEST_PAUSE or attempt == ATTEMPTS:
                raise translated(error, address, own) from error
        sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _headers(own: str | None) -> dict[str, str]:
    import huggingface_hub.utils

    utils: Any = huggingface_hub.utils  # It does not list what it gives on, as the type checker wants it.
    return dict(utils.build_hf_headers(token=own or False, library_name="zoo", library_version=__version__))


def _checked_commit(address: HubAddress, commit: str | None) -> str:
    """The commit, which becomes the name of a folder."""
    if commit is None:
        raise NetworkError(
            f"{address.url()}: the answer names no commit, so it is not that of a hub",
            f"Check that HF_ENDPOINT ({endpoint()}) and the proxy lead to one.",
        )
    if not COMMIT.fullmatch(commit):
        raise _refused(address, "commit", commit)
    if COMMIT.fullmatch(address.revision or "") and commit != address.revision:
        raise _refused(address, "commit", commit)
    return commit


def _checked_etag(address: HubAddress, etag: str | None) -> str:
    """The etag, which becomes the name of a file."""
    if etag is None or not _ETAG.fullmatch(etag) or is_leftover(etag):
        raise _refused(address, "etag", etag)
    return etag


def _refused(address: HubAddress, what: str, value: str | None) -> WeightsError:
    return WeightsError(
        f"{address.url()}: the server answers with the {what} {ascii(value)[:150]}, which is refused",
        f"Nothing was written. Check that HF_ENDPOINT ({endpoint()}) leads to a hub that you trust.",
    )


def _is_only_xet(metadata: Any, size: int | None) -> bool:
    from huggingface_hub import constants

    most = getattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 50_000_000_000)
    return getattr(metadata, "xet_file_data", None) is not None and size is not None and size > most


def _require_xet(file: HubFile) -> None:
    if is_on("HF_HUB_DISABLE_XET"):
        problem, hint = "HF_HUB_DISABLE_XET is set", "Unset HF_HUB_DISABLE_XET, then repeat the command."
    elif importlib.util.find_spec("hf_xet") is None:
        problem, hint = "the package hf_xet is missing", "pip install hf_xet"
    else:
        return
    raise PluginError(f"{file.url}: can only be had through xet, and {problem}", hint)


def _reporting_bar(progress: Callable[[int, int | None], None], size: int | None) -> type[Any]:
    """A progress bar like those of huggingface_hub that shows nothing and tells `progress`."""
    from huggingface_hub.utils.tqdm import tqdm

    most = 0

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self._done = int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            nonlocal most
            self._done += int(n or 0)
            # Releases make one bar, or a second one for the bytes on the line: the higher one counts.
            if self._done > most:
                most = self._done
                progress(most if size is None else min(most, size), size)

        def update_transfer(self, n: float | None = 1) -> None:
            """The bytes on the line, which `update` counts once they are on the disk."""

        def set_transfer_postfix_str(self, *args: Any, **options: Any) -> None:
            """Nothing to show."""

    return Bar
