"""A `FaultyServer` in a process of its own, for benchmarks and for clients that are killed."""

from __future__ import annotations

import base64
import builtins
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from servers.answering import CONTROL
from servers.closing import Closing
from servers.faults import Request
from servers.faulty import PATIENCE


class RemoteServer:
    """The methods of a `FaultyServer` that runs at `address`; `when` is for servers in the same process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{self.address}/{path.lstrip('/')}"

    def put(self, path: str, content: bytes | Path, etag: str | None = None) -> None:
        """Serve `content` at `path` from now on."""
        if isinstance(content, bytes):
            self._control("put", path=path, base64_content=base64.b64encode(content).decode(), etag=etag)
        else:
            self._control("put", path=path, file=str(content.absolute()), etag=etag)

    def fault(self, **options: Any) -> int:
        """Add faults for some requests; returns the rule's number. Raises ValueError for unknown names."""
        number: int = self._control("fault", **options)
        return number

    def hits(self, rule: int) -> int:
        """How many requests the rule has met."""
        hits: int = self._control("hits", rule=rule)
        return hits

    def remove(self, rule: int) -> None:
        """Take one rule away."""
        self._control("remove", rule=rule)

    def clear_faults(self) -> None:
        """Be a correct server again."""
        self._control("clear_faults")

    @property
    def requests(self) -> list[Request]:
        """All requests since the start or `reset`."""
        return [Request(**fields) for fields in self._control("requests")]

    def sent(self, path: str | None = None) -> int:
        """Bytes of bodies handed to the socket, for one path or all."""
        sent: int = self._control("sent", path=path)
        return sent

    def wait_sent(self, count: int, path: str | None = None, timeout: float = PATIENCE) -> int:
        """Wait until so many bytes were sent; returns how many. Raises TimeoutError."""
        sent: int = self._control("wait_sent", count=count, path=path, timeout=timeout)
        return sent

    def wait_requests(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until so many requests have come. Raises TimeoutError."""
        self._control("wait_requests", count=count, timeout=timeout)

    def wait_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until no answer is under way. Raises TimeoutError."""
        self._control("wait_idle", timeout=timeout)

    def reset(self) -> None:
        """Forget requests and bytes; rules stay."""
        self._control("reset")

    def _control(self, verb: str, **asked: Any) -> Any:
        body = json.dumps(asked).encode()
        request = urllib.request.Request(self.address + CONTROL + verb, body, method="POST")
        try:
            with self._opener.open(request) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                told = json.load(error)
        raise getattr(builtins, told["error"], RuntimeError)(told["message"])


class ServerProcess(Closing, RemoteServer):
    """Starts a server for the folder `root`; it ends with `close`, or with this process however that ends."""

    def __init__(self, root: Path | None = None, *, port: int = 0, name: str = "127.0.0.1") -> None:
        command = [
            sys.executable,
            "-m",
            "servers.faulty",
            "--until-stdin-ends",
            "--port",
            str(port),
            "--name",
            name,
        ]
        if root is not None:
            command += ["--root", str(root.absolute())]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert self.process.stdout is not None
        super().__init__(self.process.stdout.readline().strip())
        if not self.address:
            self.close()

    def close(self) -> None:
        """End the server. Raises RuntimeError if it went wrong."""
        _, errors = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(f"the test server failed:\n{errors}")
