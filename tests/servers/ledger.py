"""What the connections of a `FaultyServer` share: files, rules, and the record of requests and bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from servers.faults import Faults, Request, Rule

#: The date of the first file from memory; each later one is a second younger, so that dates tell them apart.
FIRST_DATE = 1_767_225_600


@dataclass(frozen=True)
class Resource:
    """One file that is served: from memory, or from a disk without being read into memory."""

    content: bytes | Path
    etag: str
    modified: str

    def view(self) -> memoryview:
        """The content, without a copy."""
        if isinstance(self.content, bytes):
            return memoryview(self.content)
        with self.content.open("rb") as file:
            if self.content.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class Pace:
    """Spaces bytes out in time; several connections may share one."""

    #: How far a sender that came late may catch up, in seconds.
    CREDIT = 0.02

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = time.monotonic()

    def wait(self, count: int, rate: float) -> float:
        """Take `count` bytes at `rate` bytes per second; returns the seconds until they may have gone."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - self.CREDIT) + count / rate
            return self._free - now


class Ledger:
    """Shared state; every method may be called from every thread."""

    def __init__(self, files: Mapping[str, bytes | Path], root: Path | None) -> None:
        self.total_pace = Pace()
        self._changed = threading.Condition()
        self._root = root
        self._files: dict[str, Resource] = {}
        self._dates = FIRST_DATE
        self._rules: list[Rule] = []
        self._requests: list[Request] = []
        self._sent: Counter[str] = Counter()
        self._numbers = 0
        self._connections = 0
        self._admitted: set[int] = set()
        self._signatures: Counter[str] = Counter()
        self._signed = 0
        self._start = time.monotonic()
        for path, content in files.items():
            self.put(path, content)

    # Files

    def put(self, path: str, content: bytes | Path, etag: str | None = None) -> None:
        """Serve `content` at `path` from now on, with an ETag that follows from the content."""
        with self._changed:
            self._files["/" + path.lstrip("/")] = self._resource(content, etag)

    def _resource(self, content: bytes | Path, etag: str | None) -> Resource:
        if isinstance(content, bytes):
            self._dates += 1
            tag, date = hashlib.sha256(content).hexdigest()[:16], float(self._dates)
        else:
            status = content.stat()
            tag, date = f"{status.st_size:x}-{status.st_mtime_ns:x}", status.st_mtime
        return Resource(content, etag or f'"{tag}"', formatdate(date, usegmt=True))

    def resource(self, path: str) -> Resource | None:
        """The file at `path`: one that was put there, else one below the root."""
        with self._changed:
            if path in self._files:
                return self._files[path]
        if self._root is None:
            return None
        file = (self._root / unquote(path).lstrip("/")).resolve()
        if not file.is_relative_to(self._root.resolve()) or not file.is_file():
            return None
        return self._resource(file, None)

    # Rules

    def add(self, rule: Rule) -> Rule:
        with self._changed:
            self._rules.append(rule)
        return rule

    def remove(self, number: int | None) -> None:
        """Take one rule away, or all."""
        with self._changed:
            self._rules = [rule for rule in self._rules if number is not None and rule.number != number]

    def hits(self, number: int) -> int:
        """How many requests a rule has met. Raises KeyError for one that was taken away."""
        with self._changed:
            return {rule.number: rule.hits for rule in self._rules}[number]

    def faults(self, request: Request, so_far: Faults | None = None) -> Faults:
        """The faults that a request meets before a file is looked for, or with `so_far` those after that.

        Each rule is asked once for each request, and only at its stage: a fault of the body with `times=1`
        is still there when a burst of 503 is over. Of two rules for the same fault the younger one counts.
        """
        with self._changed:
            sent = self._sent[request.path]
            early = so_far is None
            met = [rule for rule in self._rules if rule.early == early and rule.meets(request, sent)]
        given: dict[str, Any] = {}
        for rule in met:
            given |= rule.faults
        return dataclasses.replace(so_far or Faults(), **given)

    # Connections

    def connect(self) -> int:
        """The number of a new connection."""
        with self._changed:
            self._connections += 1
            return self._connections

    def disconnect(self, connection: int) -> None:
        with self._changed:
            self._admitted.discard(connection)

    def admit(self, connection: int, limit: int | None) -> bool:
        """Whether the connection is among the first `limit` of those that are open."""
        with self._changed:
            if limit is not None and connection not in self._admitted and len(self._admitted) >= limit:
                return False
            self._admitted.add(connection)
            return True

    # Signatures

    def sign(self, uses: int | None, seconds: float | None) -> str:
        """The query of a signed address. All that is needed to judge it stands in it: any server can."""
        with self._changed:
            self._signed += 1
            query = f"sig={self._signed}"
        if uses is not None:
            query += f"&uses={uses}"
        return query if seconds is None else f"{query}&until={time.time() + seconds}"

    def signature_holds(self, query: str) -> bool:
        """Whether the signature is good for one more request, which this call uses up."""
        given = parse_qs(query)
        with self._changed:
            self._signatures[query] += 1
            used = self._signatures[query]
        within_uses = "uses" not in given or used <= int(given["uses"][0])
        return within_uses and ("until" not in given or time.time() <= float(given["until"][0]))

    # The record

    def record(self, connection: int, method: str, target: str, headers: Mapping[str, str]) -> Request:
        path, _, query = _without_host(target).partition("?")
        at = time.monotonic() - self._start
        names = {name.lower(): value for name, value in headers.items()}
        with self._changed:
            request = Request(self._numbers, connection, at, method, target, path, query, names)
            self._numbers += 1
            self._requests.append(request)
            self._changed.notify_all()
        return request

    def counted(self, request: Request, push: Callable[[], int]) -> int:
        """Call what hands bytes of a file to the socket and count them; for old requests only for themselves.

        Both in one step: who has received bytes finds them counted. So `push` must not wait.
        """
        with self._changed:
            count = push()
            request.sent += count
            if self._known(request):
                self._sent[request.path] += count
            self._changed.notify_all()
        return count

    def finish(self, request: Request) -> None:
        with self._changed:
            request.finished = True
            self._changed.notify_all()

    def _known(self, request: Request) -> bool:
        return bool(self._requests) and request.number >= self._requests[0].number

    def reset(self) -> None:
        """Forget all requests and bytes."""
        with self._changed:
            self._requests.clear()
            self._sent.clear()

    def requests(self) -> list[Request]:
        with self._changed:
            return [dataclasses.replace(request) for request in self._requests]

    def sent(self, path: str | None) -> int:
        with self._changed:
            return self._sum(path)

    def _sum(self, path: str | None) -> int:
        return self._sent.total() if path is None else self._sent["/" + path.lstrip("/")]

    def wait_sent(self, count: int, path: str | None, timeout: float) -> int:
        """Wait until so many bytes were sent. Raises TimeoutError."""
        self._wait(lambda: self._sum(path) >= count, timeout, f"{count} bytes were not sent")
        return self.sent(path)

    def wait_requests(self, count: int, timeout: float) -> None:
        """Wait until so many requests have come. Raises TimeoutError."""
        self._wait(lambda: len(self._requests) >= count, timeout, f"{count} requests did not come")

    def wait_idle(self, timeout: float) -> None:
        """Wait until no answer is under way. Raises TimeoutError."""
        self._wait(lambda: all(each.finished for each in self._requests), timeout, "answers are under way")

    def _wait(self, condition: Callable[[], bool], timeout: float, otherwise: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"{otherwise} within {timeout} s")


def _without_host(target: str) -> str:
    """The path and query of a request target that may be a whole address."""
    if "://" not in target.partition("?")[0]:
        return target
    return "/" + target.partition("://")[2].partition("/")[2]
