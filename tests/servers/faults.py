"""What a `FaultyServer` can do wrong, to which requests, and the record it keeps of each request."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

Framing = Literal["length", "chunked", "close"]
#: "all": every request; "none": without Range; "any": with one; "later": with one that starts behind byte 0.
Ranges = Literal["all", "none", "any", "later"]


@dataclass(frozen=True)
class Faults:
    """Everything that can go wrong with one answer; the defaults are a server that does all well.

    Offsets and counts are in bytes, times in seconds. "Behind N bytes" means: of this answer's body.
    `headers` given together with a fault of the first group stand in that fault's answer too.
    """

    # Before a file is looked for. The first that applies gives the answer.
    delay: float = 0.0  # silence before the head; what follows applies afterwards
    garbage: bool = False  # bytes that are no HTTP, then the end
    endless_head: bool = False  # header after header, until the client goes
    max_connections: int | None = None  # connections beyond this number are told 503 and closed
    status: int | None = None  # this status instead of the file
    retry_after: float | None = None  # Retry-After of `status` and of 503 beyond `max_connections`
    retry_after_date: bool = False  # ... told as an HTTP date, rounded up to a whole second
    required_token: str | None = None  # the file only for `Authorization: Bearer <token>`
    without_token: int = 401  # the status for those who show none
    wrong_token: int = 403  # the status for those who show another
    redirect: str | None = None  # Location, word for word: absolute, relative, file:///...
    redirect_status: int = 302
    signature_uses: int | None = None  # the redirect is signed: good for so many requests
    signature_seconds: float | None = None  # ... for so long
    needs_signature: bool = False  # at the target of a signed redirect: 403 without a signature
    no_head: bool = False  # 405 for HEAD

    # The head of the answer that brings the file.
    headers: Mapping[str, str | None] = field(default_factory=dict)  # set, or with None left out
    serve: str | None = None  # the file of this path instead, with its ETag and date
    etag: str | None = None  # this ETag, with its quotes
    weak_etag: bool = False
    no_etag: bool = False
    no_last_modified: bool = False
    no_accept_ranges: bool = False
    ignore_range: bool = False  # always 200 and the whole file
    ignore_if_range: bool = False  # 206 although the file is another one
    range_shift: int = 0  # other offsets than those asked for are sent, and the head says so
    content_range_shift: int = 0  # what was asked for is sent, and the head says other offsets
    content_range: str | None = None  # "bytes {start}-{end}/{size}" written anew; "" leaves it out
    multipart: bool = False  # an answer to Range as multipart/byteranges
    framing: Framing = "length"  # "chunked" and "close" do not tell the size
    length_off: int = 0  # added to the number in Content-Length, not to the body
    gzip: bool = False  # Content-Encoding: gzip, also where identity was asked for

    # The body.
    flip_at: int | None = None  # one bit of the byte at this offset of the file is wrong
    extra_body: int = 0  # so many bytes more than the file has; the head counts them in
    endless_body: bool = False  # zeros behind the file until the client goes; chunked unless `framing` says
    drop_after: int | None = None  # the connection is reset behind N bytes, once the client's side has them
    truncate_after: int | None = None  # the connection is closed in an orderly way behind N bytes
    stall_after: int | None = None  # silence behind N bytes
    stall_seconds: float = 3600.0  # ... for so long, then the rest; ends at once when either side closes
    trickle: float | None = None  # one byte each so many seconds
    trickle_after: int = 0  # ... from here on
    bytes_per_second: float | None = None  # for each connection
    bytes_per_second_total: float | None = None  # for all connections with this fault together


_NAMES = [each.name for each in dataclasses.fields(Faults)]
_EARLY = frozenset(_NAMES[: _NAMES.index("headers")])
_BODY = frozenset(_NAMES[_NAMES.index("flip_at") :])


@dataclass
class Request:
    """One request as it came, and what became of it. Header names are in lower case."""

    number: int
    connection: int  # counts from 1; requests of one connection share it
    at: float  # seconds since the server's start
    method: str
    target: str  # as asked: a client that takes the server for a proxy sends a whole address
    path: str
    query: str
    headers: dict[str, str]
    status: int = 0  # of the answer; 0 while there is none, and where none was HTTP
    sent: int = 0  # bytes of the body, handed to the socket
    finished: bool = False  # nothing more will be sent

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")

    def within(self, ranges: Ranges) -> bool:
        """Whether the request is of this kind. `bytes=-n` starts behind byte 0."""
        if ranges == "all" or self.range is None:
            return ranges in ("all", "none")
        return ranges == "any" or (ranges == "later" and not re.match(r"bytes=\s*0+-", self.range))


_numbers = itertools.count(1)


@dataclass
class Rule:
    """Faults and the requests they are for. `asked` counts the requests that fit, `hits` those it met."""

    faults: dict[str, Any]
    path: str = "*"  # a pattern as in a shell; without the query
    method: str | None = None
    ranges: Ranges = "all"
    times: int | None = None  # how many requests it meets before it is spent
    after_requests: int = 0  # how many that fit are spared first
    after_bytes: int = 0  # sleeps until so many bytes of the path were sent
    when: Callable[[Request], bool] | None = None  # in-process only
    number: int = field(default_factory=lambda: next(_numbers))
    asked: int = 0
    hits: int = 0

    @classmethod
    def made(cls, options: Mapping[str, Any]) -> Self:
        """From the keywords of `FaultyServer.fault`. Raises ValueError for one that nobody knows."""
        scopes = {"path", "method", "ranges", "times", "after_requests", "after_bytes", "when"}
        unknown = sorted(set(options) - scopes - set(_NAMES))
        if unknown:
            raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(_NAMES)}")
        faults = {name: value for name, value in options.items() if name in _NAMES}
        if not faults:
            raise ValueError("a rule needs a fault")
        return cls(faults, **{name: value for name, value in options.items() if name in scopes})

    @property
    def early(self) -> bool:
        """Whether it meets a request before a file is looked for."""
        return not _EARLY.isdisjoint(self.faults)

    def meets(self, request: Request, sent: int) -> bool:
        """Whether this request gets the faults; counts it. HEAD has no body, and uses up no fault of one."""
        if not self._fits(request) or sent < self.after_bytes:
            return False
        self.asked += 1
        if self.asked <= self.after_requests or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    def _fits(self, request: Request) -> bool:
        if request.method == "HEAD" and _BODY.issuperset(self.faults):
            return False
        return (
            fnmatchcase(request.path, self.path)
            and self.method in (None, request.method)
            and request.within(self.ranges)
            and (self.when is None or self.when(request))
        )
