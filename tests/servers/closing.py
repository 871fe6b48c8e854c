"""What all servers of the tests have in common: they run from their construction until they are closed."""

from __future__ import annotations

from typing import Self


class Closing:
    """Closed by the end of its `with` block; an error in the block comes before one of the server itself."""

    def close(self) -> None:
        """End the server. Raises RuntimeError if it went wrong."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except RuntimeError:
            if kind is None:
                raise
