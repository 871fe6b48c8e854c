"""One request at a time over HTTP: ranges, redirects, proxies, tokens, and what an answer means.

Only the standard library, whose client honours the proxy variables. A token goes to the origin it is meant
for and to no other; no redirect leads from https to plain http, and plain http leads to this machine only.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import importlib
import ipaddress
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.version import __version__

MOST_REDIRECTS = 10

REDIRECTS = (301, 302, 303, 307, 308)

#: Answers that another try may better: overload, and errors of a server or a gateway.
PASSING = (408, 425, 429, 500, 502, 503, 504)

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Trouble(Exception):
    """A request that failed in a way that another try may better.

    `pause` are the seconds the server asks to wait; `busy` says that it asks for fewer requests;
    `unreachable` that no connection came about; `attempts` bounds how often another try is worth it.
    """

    attempts: int | None = None

    def __init__(
        self, reason: str, pause: float | None = None, busy: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause = pause
        self.busy = busy
        self.unreachable = unreachable


class Rejected(Exception):
    """An answer that another try will not better. `status` is None where there was none worth the name."""

    def __init__(self, status: int | None, reason: str, url: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.url = url


@dataclass
class Target:
    """A file on a server. `headers` may hold a token: they are sent to the origin of `url` only.

    After a redirect the place it led to is asked directly, until that refuses (signed addresses expire).
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    led_to: str | None = None


@dataclass
class Answer:
    """The head of an answer with its body still to be read: bytes [start, ...) of a file of `total` bytes."""

    response: Any
    status: int
    url: str
    start: int
    total: int | None
    validator: str | None

    def read(self, most: int) -> bytes:
        """Some bytes, as soon as there are any; b"" at the end. Raises `Trouble`."""
        try:
            block: bytes = self.response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _trouble(error) from error
        return block

    def close(self) -> None:
        """Stop reading and drop the connection."""
        self.response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def request(
    target: Target,
    span: tuple[int, int | None] | None = None,
    validator: str | None = None,
    seconds: float = 20.0,
    method: str = "GET",
) -> Answer:
    """Ask for a file, or for its bytes [start, end) with `span` (end None: to the last one).

    `validator` asks for the span only if the file is still the same (If-Range). `seconds` is the longest
    silence. The answer has status 200 (the whole file) or 206 (the span). Raises `Trouble` or `Rejected`.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": f"zoo/{__version__}"}
    if span is not None:
        start, end = span
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if validator is not None:
            headers["If-Range"] = validator
    if target.led_to is not None:
        try:
            return _checked(_open(target.led_to, headers, seconds, method), target.led_to, span)
        except Rejected:
            target.led_to = None
    return _following(target, headers, span, seconds, method)


def _following(
    target: Target, headers: dict[str, str], span: tuple[int, int | None] | None, seconds: float, method: str
) -> Answer:
    url = check_url(target.url)
    for _ in range(MOST_REDIRECTS):
        own = dict(target.headers) if origin(url) == origin(target.url) else {}
        response = _open(url, {**own, **headers}, seconds, method)
        if response.status not in REDIRECTS:
            answer = _checked(response, url, span)
            target.led_to = url if url != target.url and origin(url) != origin(target.url) else None
            return answer
        response.close()
        url = _next(url, response.headers.get("Location"))
    raise Rejected(None, f"more than {MOST_REDIRECTS} redirects", target.url)


def _next(url: str, location: str | None) -> str:
    if not location:
        raise Rejected(None, "a redirect to nowhere", url)
    following = urllib.parse.urljoin(url, location)
    if urllib.parse.urlsplit(url).scheme == "https" and not following.lower().startswith("https://"):
        raise Rejected(None, f"a redirect from https to {printable(following)}", url)
    return check_url(following)


def check_url(url: str) -> str:
    """`url` if it may be asked: https, or plain http on this machine. Raises `Rejected`."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise Rejected(None, f"not an address: {error}", url) from error
    if any(ord(sign) <= 32 or ord(sign) >= 127 for sign in url) or not host:
        raise Rejected(None, "not an address", url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return url
    raise Rejected(None, f"{parts.scheme}:// is not asked, only https:// (http:// on this machine)", url)


def is_loopback(host: str) -> bool:
    """Whether a host's name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a token is meant for."""
    parts = urllib.parse.urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def printable(url: str) -> str:
    """An address for people: without its query, which may hold a signature, and without a password."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    text = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
    return "".join(sign for sign in text if sign.isprintable())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed here, where it is known which headers may go along."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _open(url: str, headers: Mapping[str, str], seconds: float, method: str) -> Any:
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=_tls()))
    message = urllib.request.Request(url, headers=dict(headers), method=method)
    try:
        return opener.open(message, timeout=seconds)
    except urllib.error.HTTPError as error:
        return error  # It is the answer itself: its status and head are what is wanted.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _trouble(error, connecting=True) from error


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath or os.environ.get("SSL_CERT_FILE")):
        # Some builds of Python know no authorities; a package that often comes with huggingface_hub does.
        with contextlib.suppress(ImportError):
            context.load_verify_locations(importlib.import_module("certifi").where())
    return context


def _checked(response: Any, url: str, span: tuple[int, int | None] | None) -> Answer:
    """The answer, if it is one to a question about bytes; closed otherwise."""
    if response.status in REDIRECTS:
        # A place that a redirect led to sends on again: the whole way has to be gone anew.
        response.close()
        raise Rejected(response.status, "a further redirect", url)
    try:
        return _answer(response, url, span)
    except BaseException:
        response.close()
        raise


def _answer(response: Any, url: str, span: tuple[int, int | None] | None) -> Answer:
    status, headers = response.status, response.headers
    if status in PASSING:
        busy = status in (429, 503)
        raise Trouble(f"the server answers {status} {response.reason}".rstrip(), _pause(headers), busy)
    if status not in (200, 206):
        raise Rejected(status, f"the server answers {status} {response.reason}".rstrip(), url)
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Rejected(status, f"the server sends the file with encoding {encoding!r}", url)
    validator = _validator(headers)
    if status == 200:
        return Answer(response, status, url, 0, _number(headers.get("Content-Length")), validator)
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None or span is None:
        raise Rejected(status, "the server sends a part of the file that it does not name", url)
    total = None if match[3] == "*" else int(match[3])
    return Answer(response, status, url, int(match[1]), total, validator)


def _validator(headers: Any) -> str | None:
    """What If-Range may hold: a strong entity tag, else the date of the last change."""
    tag = headers.get("ETag", "").strip()
    if tag and not tag.startswith("W/") and len(tag) < 1000:
        return str(tag)
    date = headers.get("Last-Modified")
    return str(date).strip() if date else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() and len(text) < 20 else None


def _pause(headers: Any) -> float | None:
    """Seconds of a Retry-After head: a number or a date."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdigit() and len(text) < 9:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _trouble(error: BaseException, connecting: bool = False) -> Trouble | Rejected:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Rejected(None, f"its certificate is not valid: {reason.verify_message}", "")
    if isinstance(reason, TimeoutError):
        return Trouble("no answer in time" if connecting else "no data came", unreachable=connecting)
    if isinstance(reason, socket.gaierror):
        return Trouble("its name cannot be resolved", unreachable=True)
    if isinstance(reason, http.client.IncompleteRead):
        return Trouble("the connection ended early")
    if isinstance(reason, ConnectionRefusedError):
        return Trouble("the connection was refused", unreachable=True)
    if isinstance(reason, OSError):
        return Trouble((reason.strerror or str(reason)).lower(), unreachable=connecting)
    if isinstance(reason, http.client.HTTPException):
        return Trouble(f"the answer is not HTTP ({type(reason).__name__})")
    return Trouble(" ".join(str(reason).split()) or type(reason).__name__, unreachable=connecting)
