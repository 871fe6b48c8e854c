"""The digest of a file that is still arriving."""

from __future__ import annotations

import hashlib
import threading

from zoo.store.download.parts import Part
from zoo.store.hashing import BLOCK


class Follower(threading.Thread):
    """Hashes a part from its beginning while it grows, as far as there is no gap.

    Reading the bytes once more costs little, they are in the system's cache; a hash kept by whoever receives
    them would need them in order, and would be lost with its process.
    """

    def __init__(self, part: Part) -> None:
        super().__init__(name="zoo-hash", daemon=True)
        self._part = part
        self._stopped = threading.Event()
        self._size: int | None = None
        self._digest = hashlib.sha256()
        self._error: Exception | None = None

    def run(self) -> None:
        """Hash until the file is complete, or until it is stopped."""
        try:
            self._follow()
        except Exception as error:
            self._error = error

    def result(self, size: int) -> str:
        """The digest of the first `size` bytes, all of which are there by now."""
        self._size = size
        self._part.wake()
        self.join()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def stop(self) -> None:
        """Stop before the end."""
        self._stopped.set()
        self._part.wake()

    def _follow(self) -> None:
        hashed, generation = 0, self._part.generation

        def enough() -> bool:
            begun_anew = generation != self._part.generation
            return self._stopped.is_set() or begun_anew or (self._size is not None and hashed >= self._size)

        while not self._stopped.is_set():
            there = self._part.wait_beyond(hashed, enough)
            if generation != self._part.generation:
                self._digest, hashed, generation = hashlib.sha256(), 0, self._part.generation
                continue
            if hashed == self._size:
                return
            while hashed < there and not self._stopped.is_set():
                block = self._part.read(hashed, min(BLOCK, there - hashed))
                if not block:
                    break  # The part was begun anew meanwhile.
                self._digest.update(block)
                hashed += len(block)
