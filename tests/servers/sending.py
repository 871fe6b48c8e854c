"""How the body of an answer goes to the socket: in blocks, at a pace, and not always to its end."""

from __future__ import annotations

import fcntl
import functools
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterable

from servers.bodies import blocks
from servers.faults import Faults
from servers.ledger import Pace

BLOCK = 256 * 1024
#: Blocks of a throttled body: small enough for a hundred a second, so that it flows instead of jumping.
THROTTLED_BLOCK = 64 * 1024
#: The pace of an endless body that nobody throttles: a client that never stops should not fill a disk.
ENDLESS_RATE = 16 * 2**20

#: Hands bytes to the socket and returns how many.
Push = Callable[[], int]


class Hangup(Exception):
    """The connection ends here, in an orderly way."""


class Reset(Hangup):
    """The connection ends here, by force: the client sees "connection reset by peer"."""


class Wire:
    """One connection as the server writes to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes | memoryview, counted: Callable[[Push], int] = lambda push: push()) -> None:
        """Hand everything to the socket, each piece through `counted`, which never has to wait."""
        view = memoryview(data)
        while view:
            try:
                view = view[counted(self._push(view)) :]
            except BlockingIOError:
                writable = select.poll()
                writable.register(self.connection, select.POLLOUT)
                writable.poll()

    def _push(self, view: memoryview) -> Push:
        if not isinstance(self.connection, ssl.SSLSocket):
            return functools.partial(self.connection.send, view, socket.MSG_DONTWAIT)
        count = self.connection.send(view)  # TLS cannot try without waiting: this piece is counted late.
        return lambda: count

    def pause(self, seconds: float) -> None:
        """Silence. Raises Hangup at once when the client or the server closes the connection."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            if poll.poll(min(left, 60.0) * 1000):
                if self._gone():
                    raise Hangup
                poll.modify(self.connection, 0)  # The next request waits there; errors are told all the same.

    def _gone(self) -> bool:
        """Whether the client has closed. Bytes of TLS cannot be looked at, and mean that it does."""
        if isinstance(self.connection, ssl.SSLSocket):
            return True
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def drain(self, at_most: float = 5.0) -> None:
        """Wait until the client's system has acknowledged every byte: a reset throws away what it has not."""
        end = time.monotonic() + at_most
        while time.monotonic() < end:
            try:
                left = fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, bytes(4))
            except OSError:
                left = bytes(4)
            if struct.unpack("i", left)[0] == 0:
                return
            self.pause(0.002)

    def reset(self) -> None:
        """Make closing send a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Sender:
    """Sends one body. `counted` is called with what hands bytes of it, but no chunk sizes, to the socket."""

    def __init__(self, wire: Wire, faults: Faults, total: Pace, counted: Callable[[Push], int]) -> None:
        self.wire = wire
        self.faults = faults
        self.counted = counted
        self._own, self._total = Pace(), total
        self._rate = faults.bytes_per_second
        if faults.endless_body and not (self._rate or faults.bytes_per_second_total):
            self._rate = float(ENDLESS_RATE)

    def body(self, views: Iterable[memoryview], chunked: bool) -> None:
        """Send all of it. Raises Hangup where a fault ends the connection."""
        faults = self.faults
        ends = [
            end for end in (faults.drop_after, faults.truncate_after, faults.stall_after) if end is not None
        ]
        single_from = float("inf") if faults.trickle is None else faults.trickle_after
        position = 0
        for block in blocks(views, self._block(), ends, single_from):
            self._meet(position)
            self._keep_pace(len(block), position)
            self._send(block, chunked)
            position += len(block)
        self._meet(position)
        if chunked:
            self.wire.send(b"0\r\n\r\n")

    def _block(self) -> int:
        rates = [rate for rate in (self._rate, self.faults.bytes_per_second_total) if rate is not None]
        return max(1, min(THROTTLED_BLOCK, int(min(rates) / 100))) if rates else BLOCK

    def _meet(self, position: int) -> None:
        """The faults at this byte."""
        if position == self.faults.stall_after:
            self.wire.pause(self.faults.stall_seconds)
        if position == self.faults.drop_after:
            self.wire.drain()
            raise Reset
        if position == self.faults.truncate_after:
            raise Hangup

    def _keep_pace(self, count: int, position: int) -> None:
        waits = [0.0]
        if self._rate is not None:
            waits.append(self._own.wait(count, self._rate))
        if self.faults.bytes_per_second_total is not None:
            waits.append(self._total.wait(count, self.faults.bytes_per_second_total))
        if self.faults.trickle is not None and position >= self.faults.trickle_after:
            waits.append(self.faults.trickle)
        if max(waits) > 0.001:  # Less cannot be slept exactly; the pace makes up for it at the next block.
            self.wire.pause(max(waits))

    def _send(self, block: memoryview, chunked: bool) -> None:
        if chunked:
            self.wire.send(b"%x\r\n" % len(block))
        self.wire.send(block, self.counted)
        if chunked:
            self.wire.send(b"\r\n")
