"""A model hub on the loopback device, as far as clients need one to read: metadata, files, logins, refusals.

    with HubServer() as hub:
        model = hub.repository("org/model")
        commit = model.commit({"config.json": b"{}", "model.safetensors": weights})
        hf_hub_download("org/model", "model.safetensors", endpoint=hub.endpoint, cache_dir=folder)
        assert hub.tokens_shown("cdn") == set()

Large files are redirected to `hub.cdn`, a `FaultyServer` on an origin of its own, with signed addresses: all
its faults are at hand (`hub.cdn.fault(drop_after=1000, times=1)`). Outside of the client's process

    python -m servers.hub --file model.safetensors=PATH
    python -m servers.hub --size 1000000000

print the endpoint, then the address (hf://...) of each file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from servers.closing import Closing
from servers.faulty import FaultyServer
from servers.hub_answers import HubRequest, Listening, Trouble
from servers.hub_repositories import HubBlob, Repository

if TYPE_CHECKING:
    import pytest

BLOCK = 1 << 20

#: What may lead a client elsewhere than to this hub, or make it send what a test did not give it.
VARIABLES = (
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_OIDC_RESOURCE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "ZOO_OFFLINE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_DISABLE_SYMLINKS",
    "HF_HUB_DISABLE_XET",
)


class HubServer(Closing):
    """Holds `repositories`; runs from its construction to `close`.

    `lies` are headers of answers about files: given ones replace true ones, None leaves one out.
    `invented_paths` stand in listings, though no such files exist. `accounts` maps tokens to names.
    `signature_uses` is how many requests an address of a large file is good for, None for any number.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.accounts: dict[str, str] = {}
        self.lies: dict[str, str | None] = {}
        self.invented_paths: list[str] = []
        self.signature_uses: int | None = None
        self.errors: list[BaseException] = []
        self._troubles: list[Trouble] = []
        self._requests: list[HubRequest] = []
        self._sent = 0
        self._lock = threading.Lock()
        self.cdn = FaultyServer()
        self.cdn.fault(needs_signature=True)
        # Storage services refuse requests that are signed and carry a token as well.
        self.cdn.fault(status=400, when=lambda request: request.authorization is not None)
        self._listening = Listening(self)
        self.port: int = self._listening.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._listening.serve_forever, kwargs={"poll_interval": 0.02}, name="hub", daemon=True
        )
        self._thread.start()

    # What it holds

    def repository(
        self, name: str, *, private: bool = False, gated: bool = False, disabled: bool = False
    ) -> Repository:
        """A new repository, without a commit yet."""
        self.repositories[name] = Repository(name, private=private, gated=gated, disabled=disabled)
        return self.repositories[name]

    def rename(self, old: str, new: str) -> None:
        """Give a repository another name; the old one redirects to it."""
        repository = self.repositories.pop(old)
        repository.name = new
        self.repositories[new] = repository
        self.renamed[old] = new

    def login(self, name: str) -> str:
        """Open an account; returns its token."""
        token = f"hf_{name}{'x' * 30}"
        self.accounts[token] = name
        return token

    # What it does wrong

    def burst(self, status: int, times: int, **headers: str) -> None:
        """Answer the next requests about files with this status; underscores in headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._troubles += [(status, named)] * times

    def drop(self, times: int) -> None:
        """Reset the connections of the next requests about files instead of answering."""
        self._troubles += [(None, {})] * times

    # What happened

    @property
    def requests(self) -> list[HubRequest]:
        """Requests to the hub itself, in the order in which they came; `cdn.requests` has the others."""
        with self._lock:
            return list(self._requests)

    def asked(self, path: str) -> int:
        """How many requests to the hub had this in their path."""
        return sum(path in request.path for request in self.requests)

    def tokens_shown(self, host: Literal["hub", "cdn"]) -> set[str]:
        """What came as Authorization to one of the two origins."""
        requests = self.requests if host == "hub" else self.cdn.requests
        return {request.authorization for request in requests if request.authorization is not None}

    def sent(self) -> int:
        """Bytes of files that were sent by both."""
        with self._lock:
            return self._sent + self.cdn.sent()

    def reset(self) -> None:
        """Forget requests and bytes, be a correct hub again."""
        self.cdn.reset()
        self.lies.clear()
        self.invented_paths.clear()
        with self._lock:
            self._requests.clear()
            self._troubles.clear()
            self._sent = 0

    # For its connections

    def arrived(self, request: HubRequest) -> Trouble | None:
        """Record a request; returns what goes wrong with it."""
        with self._lock:
            self._requests.append(request)
            about_a_file = "/resolve/" in request.path
            return self._troubles.pop(0) if self._troubles and about_a_file else None

    def signed(self, blob: HubBlob) -> str:
        """The address of a large file's content, good for a while."""
        path = f"/{blob.sha256[:2]}/{blob.sha256}"
        if self.cdn.ledger.resource(path) is None:
            self.cdn.put(path, blob.content)
        return f"{self.cdn.url(path)}?{self.cdn.ledger.sign(self.signature_uses, 3600.0)}"

    def counted(self, count: int) -> None:
        """Bytes of a small file were sent."""
        with self._lock:
            self._sent += count

    # Running

    def close(self) -> None:
        """End it. Raises RuntimeError if the server itself went wrong."""
        self._listening.shutdown()
        self._thread.join()
        self._listening.server_close()
        self.cdn.close()
        if self.errors:
            raise RuntimeError("the hub of the test failed") from self.errors[0]


def environment(hub: HubServer | str, home: Path) -> dict[str, str]:
    """The environment of a process whose hub this is (or its endpoint), with caches and logins in `home`."""
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def use_hub(patch: pytest.MonkeyPatch, hub: HubServer | str, home: Path) -> Path:
    """Make this the hub of the current process, with caches and logins in `home`; returns the cache.

    huggingface_hub reads its environment once, when it is imported: what it remembers is replaced as well.
    """
    given = environment(hub, home)
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    for name, value in given.items():
        if os.environ.get(name) != value:
            patch.setenv(name, value)
    import huggingface_hub.constants as remembered

    cache = home / "hub"
    patch.setattr(remembered, "ENDPOINT", given["HF_ENDPOINT"])
    patch.setattr(
        remembered,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        given["HF_ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}",
    )
    patch.setattr(remembered, "HF_HOME", str(home))
    patch.setattr(remembered, "HF_HUB_CACHE", str(cache))
    patch.setattr(remembered, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(remembered, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    patch.setattr(remembered, "HF_HUB_OFFLINE", False)
    patch.setattr(remembered, "HF_HUB_DISABLE_TELEMETRY", True)
    patch.setattr(remembered, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    return cache


# As a process of its own


@contextlib.contextmanager
def random_file(size: int) -> Iterator[Path]:
    """A file of pseudo-random bytes, always the same for a size."""
    base = random.Random(0).randbytes(BLOCK) * 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.safetensors")
        with path.open("wb") as file:
            for number in range(-(-size // BLOCK)):
                # Each block begins elsewhere, so that no two that follow each other are the same.
                start = number * 7919 % BLOCK
                file.write(memoryview(base)[start : start + min(BLOCK, size - number * BLOCK)])
        yield path


def main() -> None:
    """Serve files of one repository until SIGINT or SIGTERM, or until the standard input ends."""
    parser = argparse.ArgumentParser(prog="servers.hub", description=main.__doc__)
    parser.add_argument("--repository", default="bench/files")
    parser.add_argument("--file", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--size", type=int, metavar="BYTES", help="serve a pseudo-random file of this size")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end with the process that started it"
    )
    options = parser.parse_args()
    files = {name: Path(path) for name, _, path in (each.partition("=") for each in options.file)}
    with contextlib.ExitStack() as stack:
        if options.size is not None:
            files["random.safetensors"] = stack.enter_context(random_file(options.size))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(stack.enter_context(HubServer()), options.repository, files, options.until_stdin_ends)


def _serve(hub: HubServer, name: str, files: Mapping[str, Path], until_stdin_ends: bool) -> None:
    print(hub.endpoint, flush=True)
    repository = hub.repository(name)
    repository.commit(files)
    for path in files:
        print(f"hf://{name}/{path}", flush=True)
    if until_stdin_ends:
        sys.stdin.read()
    else:
        threading.Event().wait()


if __name__ == "__main__":
    main()
