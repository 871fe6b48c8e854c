"""One connection of a `FaultyServer`: reads requests and answers them, with the faults that they meet."""

from __future__ import annotations

import itertools
import json
import math
import socket
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from servers import bodies
from servers.bodies import Span
from servers.ledger import Resource
from servers.sending import Hangup, Push, Sender, Wire

if TYPE_CHECKING:
    from servers.faulty import FaultyServer

CONTROL = "/__control__/"


class Answering(BaseHTTPRequestHandler):
    """Answers to GET and HEAD; each step below is one thing that can go wrong before a file is sent."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer  # type: ignore[assignment]

    def __init__(self, connection: socket.socket, server: FaultyServer, number: int):
        self.number = number
        self.ledger = server.ledger
        self.wire = Wire(connection)
        super().__init__(connection, connection.getpeername(), server)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: object) -> None:
        """The record of requests is the log."""

    def do_GET(self) -> None:
        if self.path.startswith(CONTROL):
            self._control()
            return
        self.request_record = self.ledger.record(
            self.number, self.command, self.path, dict(self.headers.items())
        )
        self.faults = self.ledger.faults(self.request_record)
        self.close_connection |= self.command not in ("GET", "HEAD")  # A body may follow that nobody reads.
        steps = (
            self._delay,
            self._nonsense,
            self._crowd,
            self._status,
            self._token,
            self._redirect,
            self._method,
        )
        try:
            if not any(step() for step in steps):
                self._file()
        finally:
            self.ledger.finish(self.request_record)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_CONNECT = do_GET

    # Steps: each returns whether it has answered

    def _delay(self) -> bool:
        self.wire.pause(self.faults.delay)
        return False

    def _nonsense(self) -> bool:
        if self.faults.garbage:
            self.wire.send(b"\x00\xffthis is no HTTP\r\n\r\n")
            raise Hangup
        if self.faults.endless_head:
            self.request_record.status = 200
            self.wire.send(b"HTTP/1.1 200 OK\r\n")
            for number in itertools.count():
                self.wire.send(f"X-Endless-{number}: {'-' * 60}\r\n".encode())
                self.wire.pause(
                    0.0 if number % 1000 else 0.01
                )  # A client without a limit should not fill up.
        return False

    def _crowd(self) -> bool:
        if self.ledger.admit(self.number, self.faults.max_connections):
            return False
        self.close_connection = True
        self._refuse(503, "too many connections", self._retry_after())
        return True

    def _status(self) -> bool:
        if self.faults.status is None:
            return False
        self._refuse(self.faults.status, "as the test wants it", self._retry_after())
        return True

    def _retry_after(self) -> dict[str, str | None]:
        if self.faults.retry_after is None:
            return {}
        if self.faults.retry_after_date:
            return {"Retry-After": formatdate(math.ceil(time.time() + self.faults.retry_after), usegmt=True)}
        return {"Retry-After": f"{self.faults.retry_after:g}"}

    def _token(self) -> bool:
        shown = self.request_record.authorization
        if self.faults.required_token is None or shown == f"Bearer {self.faults.required_token}":
            return False
        if shown is None:
            self._refuse(self.faults.without_token, "no token", {"WWW-Authenticate": "Bearer"})
        else:
            self._refuse(self.faults.wrong_token, "another token is needed", {})
        return True

    def _redirect(self) -> bool:
        location, faults = self.faults.redirect, self.faults
        if location is None:
            return False
        if faults.signature_uses is not None or faults.signature_seconds is not None:
            query = self.ledger.sign(faults.signature_uses, faults.signature_seconds)
            location += ("&" if "?" in location else "?") + query
        self._refuse(faults.redirect_status, "elsewhere", {"Location": location})
        return True

    def _method(self) -> bool:
        query = self.request_record.query
        signed = "sig=" in query
        if (self.faults.needs_signature and not signed) or (
            signed and not self.ledger.signature_holds(query)
        ):
            self._refuse(403, "the signature is missing, spent or expired", {})
            return True
        if self.command not in ("GET", "HEAD") or (self.command == "HEAD" and self.faults.no_head):
            self._refuse(405, "method not allowed", {"Allow": "GET"})
            return True
        return False

    # The file

    def _file(self) -> None:
        self.faults = self.ledger.faults(self.request_record, self.faults)
        resource = self.ledger.resource(self.faults.serve or self.request_record.path)
        if resource is None:
            self._refuse(404, "no such file", {})
            return
        view = resource.view()
        head = self._description(resource)
        asked = self._asked(head, resource, len(view))
        if asked == []:
            self._refuse(416, "outside the file", {**head, "Content-Range": f"bytes */{len(view)}"})
        elif asked is None:
            self._send_file(200, head, bodies.cut(view, (0, len(view)), self.faults.flip_at))
        else:
            self._send_parts(
                view, head, [bodies.shifted(one, self.faults.range_shift, len(view)) for one in asked]
            )

    def _description(self, resource: Resource) -> dict[str, str | None]:
        """The headers that tell one content from another."""
        faults = self.faults
        head: dict[str, str | None] = {}
        if not faults.no_etag:
            head["ETag"] = ("W/" if faults.weak_etag else "") + (faults.etag or resource.etag)
        if not faults.no_last_modified:
            head["Last-Modified"] = resource.modified
        if not faults.no_accept_ranges:
            head["Accept-Ranges"] = "bytes"
        return head

    def _asked(self, head: Mapping[str, str | None], resource: Resource, size: int) -> list[Span] | None:
        """The parts to send, or None for the whole file."""
        header, faults = self.request_record.range, self.faults
        if header is None or self.command != "GET" or faults.ignore_range:
            return None
        condition = self.request_record.headers.get("if-range")
        if condition is not None and not faults.ignore_if_range:
            etag = head.get("ETag") or ""
            strong = None if etag.startswith("W/") else etag
            if condition not in (strong, resource.modified):
                return None
        found = bodies.spans(header, size)
        return None if found is not None and len(found) > 1 and not faults.multipart else found

    def _send_parts(self, view: memoryview, head: dict[str, str | None], asked: list[Span]) -> None:
        parts = [
            (self._content_range(one, len(view)), bodies.cut(view, one, self.faults.flip_at)) for one in asked
        ]
        if self.faults.multipart:
            kind = f"multipart/byteranges; boundary={bodies.BOUNDARY}"
            self._send_file(206, {**head, "Content-Type": kind}, bodies.multipart(parts))
        else:
            content_range, views = parts[0]
            self._send_file(206, {**head, "Content-Range": content_range or None}, views)

    def _content_range(self, span: Span, size: int) -> str:
        start, end = (edge + self.faults.content_range_shift for edge in (span[0], span[1] - 1))
        template = self.faults.content_range
        return ("bytes {start}-{end}/{size}" if template is None else template).format(
            start=start, end=end, size=size
        )

    def _send_file(self, status: int, head: dict[str, str | None], views: list[memoryview]) -> None:
        faults, framing = self.faults, self.faults.framing
        if faults.extra_body:
            views = bodies.extended(views, faults.extra_body)
        if faults.gzip:
            views = bodies.gzipped(views)
            head["Content-Encoding"] = "gzip"
        if faults.endless_body and framing == "length":
            framing = "chunked"
        if framing == "length":
            head["Content-Length"] = str(bodies.length(views) + faults.length_off)
        elif framing == "chunked":
            head["Transfer-Encoding"] = "chunked"
        self.close_connection |= framing == "close" or faults.length_off > 0
        self._head(status, {"Content-Type": "application/octet-stream", **head})
        if self.command == "HEAD":
            return
        sender = Sender(self.wire, faults, self.ledger.total_pace, self._counted)
        sender.body(bodies.endless(views) if faults.endless_body else views, framing == "chunked")

    def _counted(self, push: Push) -> int:
        return self.ledger.counted(self.request_record, push)

    # Answers without a file

    def _refuse(self, status: int, text: str, head: Mapping[str, str | None]) -> None:
        body = f"{status}: {text}\n".encode()
        self._head(status, {"Content-Type": "text/plain", "Content-Length": str(len(body)), **head})
        if self.command != "HEAD" and status not in (204, 304):
            self.wire.send(body)

    def _head(self, status: int, head: Mapping[str, str | None]) -> None:
        self.request_record.status = status
        wanted = {name.lower(): value for name, value in self.faults.headers.items()}
        head = {name: value for name, value in head.items() if name.lower() not in wanted}
        if self.close_connection:
            head = {**head, "Connection": "close"}
        lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"Date: {formatdate(usegmt=True)}"]
        lines += [
            f"{name}: {value}" for name, value in {**head, **self.faults.headers}.items() if value is not None
        ]
        self.wire.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    # The remote control, which meets no faults and leaves no record

    def _control(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        status, answer = self.server.control(self.path.removeprefix(CONTROL), asked)
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wire.send(head.encode() + body)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
