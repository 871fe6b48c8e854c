"""A client that does nothing by itself: no redirects, no proxies, no second try. For tests of servers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 20.0


class Answer(NamedTuple):
    """What came; `error` is "incomplete" where the body ended before its announced end, else empty."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    error: str


def ask(url: str, method: str = "GET", timeout: float = TIMEOUT, **headers: str) -> Answer:
    """One request on a connection of its own; underscores in names of headers are hyphens."""
    host = urlsplit(url).netloc
    with contextlib.closing(http.client.HTTPConnection(host, timeout=timeout)) as connection:
        return exchange(connection, url.split(host, 1)[1], method, **headers)


def exchange(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> Answer:
    """One request on an open connection."""
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    with connection.getresponse() as response:
        try:
            return Answer(response.status, response.headers, response.read(), "")
        except http.client.IncompleteRead as error:
            return Answer(response.status, response.headers, error.partial, "incomplete")


def ask_raw(url: str, *, slow: bool = False, **headers: str) -> tuple[bytes, bytes, str]:
    """Head and body as they came up to the end of the connection, and that end: "closed" or "reset".

    A slow client has hardly any room for what it has not read, and begins to read late.
    """
    parts = urlsplit(url)
    lines = [
        f"GET {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    received, end = bytearray(), "closed"
    with socket.socket() as connection:
        connection.settimeout(TIMEOUT)
        if slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((parts.hostname, parts.port))
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        time.sleep(0.05 if slow else 0.0)
        try:
            while block := connection.recv(65536):
                received += block
        except ConnectionResetError:
            end = "reset"
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return head, body, end
