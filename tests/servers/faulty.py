"""A web server on the loopback device for tests of downloads: correct, until it is told to be otherwise.

    with FaultyServer({"/a.bin": content}) as server:
        server.fault(path="/a.bin", drop_after=1000, times=2)
        server.fault(status=503, retry_after=1, times=3)
        fetch(server.url("/a.bin"))
        assert server.sent("/a.bin") < 1.1 * len(content)

All that can go wrong stands in `servers.faults.Faults`, and the requests that a fault may be limited to in
`servers.faults.Rule`. Outside of the client's process: `servers.runner.ServerProcess`, or by hand

    python -m servers.faulty --root DIR

which prints its address and obeys documents that are sent to `/__control__/<name of a method>`:

    curl http://127.0.0.1:PORT/__control__/fault --json '{"path": "/a.bin", "drop_after": 1000, "times": 2}'
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from select import POLLIN, poll
from typing import Any

from servers.answering import Answering
from servers.closing import Closing
from servers.faults import Request, Rule
from servers.ledger import Ledger
from servers.sending import Hangup, Reset, Wire

#: A self-signed certificate for localhost and 127.0.0.1 with its key: it proves nothing to anyone else.
CERTIFICATE = Path(__file__).with_name("loopback.pem")
#: Connections that may wait to be accepted; a client that opens many at once should meet no delay.
BACKLOG = 128
PATIENCE = 30.0


class FaultyServer(Closing):
    """Serves `files` (path -> content, or a file on disk) and what lies below the folder `root`.

    It runs from its construction to `close`. `name` is the host in its addresses ("localhost" makes it
    another host than "127.0.0.1"); with `tls` they begin with https, and clients that are to trust it need
    `SSL_CERT_FILE` set to `certificate`.
    """

    def __init__(
        self,
        files: Mapping[str, bytes | Path] | None = None,
        *,
        root: Path | None = None,
        port: int = 0,
        name: str = "127.0.0.1",
        tls: bool = False,
    ) -> None:
        self.ledger = Ledger(files or {}, root)
        self.errors: list[BaseException] = []
        self.certificate = CERTIFICATE
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context is not None:
            self._context.load_cert_chain(CERTIFICATE)
        self._closing, self._close = socket.socketpair()
        self._lock = threading.Lock()
        self._open: dict[int, tuple[threading.Thread, socket.socket]] = {}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{'https' if tls else 'http'}://{name}:{self.port}"
        self._accepting = threading.Thread(target=self._accept, name="faulty-accept", daemon=True)
        self._accepting.start()

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{self.address}/{path.lstrip('/')}"

    # Files

    def put(self, path: str, content: bytes | Path, etag: str | None = None) -> None:
        """Serve `content` at `path` from now on; its ETag follows from it, its Last-Modified is new."""
        self.ledger.put(path, content, etag)

    # Faults

    def fault(self, **options: Any) -> int:
        """Add faults (fields of `Faults`) for some requests (fields of `Rule`); returns the rule's number.

        Rules add up; of two for the same fault the younger counts. Raises ValueError for unknown names.
        """
        return self.ledger.add(Rule.made(options)).number

    def hits(self, rule: int) -> int:
        """How many requests the rule has met."""
        return self.ledger.hits(rule)

    def remove(self, rule: int) -> None:
        """Take one rule away."""
        self.ledger.remove(rule)

    def clear_faults(self) -> None:
        """Be a correct server again."""
        self.ledger.remove(None)

    # The record

    @property
    def requests(self) -> list[Request]:
        """A copy of all requests since the start or `reset`, in the order in which they came."""
        return self.ledger.requests()

    def sent(self, path: str | None = None) -> int:
        """Bytes of bodies of files (answers 200 and 206) handed to the socket, for one path or all."""
        return self.ledger.sent(path)

    def wait_sent(self, count: int, path: str | None = None, timeout: float = PATIENCE) -> int:
        """Wait until so many bytes were sent; returns how many. Raises TimeoutError."""
        return self.ledger.wait_sent(count, path, timeout)

    def wait_requests(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until so many requests have come. Raises TimeoutError."""
        self.ledger.wait_requests(count, timeout)

    def wait_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until no answer is under way: counts stand still afterwards. Raises TimeoutError."""
        self.ledger.wait_idle(timeout)

    def reset(self) -> None:
        """Forget requests and bytes; rules stay."""
        self.ledger.reset()

    # The remote control

    def control(self, verb: str, asked: Mapping[str, Any]) -> tuple[int, Any]:
        """Obey a document of the control endpoint; returns an HTTP status and the answering document."""
        verbs: dict[str, Callable[..., Any]] = {
            each.__name__: each
            for each in (self.fault, self.hits, self.remove, self.clear_faults, self.sent, self.reset)
        } | {
            "put": self._put,
            "requests": lambda: [dataclasses.asdict(request) for request in self.requests],
            "wait_sent": self.wait_sent,
            "wait_requests": self.wait_requests,
            "wait_idle": self.wait_idle,
        }
        if verb not in verbs:
            return 404, {
                "error": "LookupError",
                "message": f"no such verb: {verb}; there are {', '.join(verbs)}",
            }
        try:
            return 200, verbs[verb](**asked)
        except (ValueError, KeyError, TypeError, TimeoutError, OSError) as error:
            return 400, {"error": type(error).__name__, "message": str(error)}

    def _put(
        self, path: str, file: str | None = None, base64_content: str = "", etag: str | None = None
    ) -> None:
        self.put(path, Path(file) if file is not None else base64.b64decode(base64_content), etag)

    # Connections

    def _accept(self) -> None:
        waiting = poll()
        waiting.register(self._closing, POLLIN)
        waiting.register(self._listener, POLLIN)
        while all(descriptor != self._closing.fileno() for descriptor, _ in waiting.poll()):
            connection, _ = self._listener.accept()
            number = self.ledger.connect()
            thread = threading.Thread(
                target=self._converse, args=(number,), name=f"faulty-{number}", daemon=True
            )
            with self._lock:
                self._open = {key: each for key, each in self._open.items() if each[0].is_alive()}
                self._open[number] = thread, connection
                thread.start()

    def _converse(self, number: int) -> None:
        connection = self._open[number][1]
        try:
            if self._context is not None:
                connection = self._secured(number, self._context)
            Answering(connection, self, number)
        except Reset:
            Wire(connection).reset()
        except (Hangup, OSError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            self.ledger.disconnect(number)
            self._open[number][1].close()

    def _secured(self, number: int, context: ssl.SSLContext) -> socket.socket:
        with self._lock:
            thread, plain = self._open[number]
            secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._open[number] = thread, secured
        secured.do_handshake()
        return secured

    def close(self) -> None:
        """End every connection and thread. Raises RuntimeError if the server itself went wrong."""
        if self._listener.fileno() < 0:
            return
        self._close.send(b"x")
        self._accepting.join()
        self._listener.close()
        with self._lock:
            left = list(self._open.values())
        for _, connection in left:
            _shut(connection)
        for thread, _ in left:
            thread.join()
        self._closing.close()
        self._close.close()
        if self.errors:
            raise RuntimeError("the test server failed") from self.errors[0]


def _shut(connection: socket.socket) -> None:
    """Wake whoever reads or writes, on either side."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve a folder until SIGINT or SIGTERM, or until the standard input ends."""
    parser = argparse.ArgumentParser(prog="servers.faulty", description=main.__doc__)
    parser.add_argument("--root", type=Path, help="the folder to serve")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="127.0.0.1", help="the host in the address")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end with the process that started it"
    )
    options = parser.parse_args()
    with FaultyServer(root=options.root, port=options.port, name=options.name, tls=options.tls) as server:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(server.address, flush=True)
        try:
            if options.until_stdin_ends:
                sys.stdin.read()
            else:
                threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
