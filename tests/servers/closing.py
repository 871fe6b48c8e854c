"""What all servers of the tests have in common: they run from their construction until they are closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Closed by the end of its `with` block; an error in the block comes before one of the server itself."""

    @abstractmethod
    def close(self) -> None:
        """End the server. Raises RuntimeError if it went wrong."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except RuntimeError:
            if kind is None:
                raise
