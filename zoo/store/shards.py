"""A file of a card that is the index of several: fetched first, then what it names, and stored as one file.

The files lie beside the index, on the same server and, on the hub, at the same commit. Each is fetched and
checked as any other; together they are converted to a single safetensors file.
"""

from __future__ import annotations

import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.cards import File
from zoo.store.checkpoints.shard_index import SUFFIX, is_index, shard_names
from zoo.store.hub.address import parse_hub
from zoo.store.manifest import DigestFrom
from zoo.store.obtaining import Obtained
from zoo.store.sources import Offer, scheme_of


def is_sharded(file: File, source: str) -> bool:
    """Whether a source is an index on a server; what lies on this machine has its files beside it."""
    scheme = scheme_of(source)
    if file.format != "pytorch" or scheme not in ("hf", "https", "http"):
        return False
    return is_index(parse_hub(source).path if scheme == "hf" else urllib.parse.urlsplit(source).path)


def beside(offer: Offer, name: str) -> str:
    """The address of a file beside an index; on the hub at the commit that the index is from."""
    if scheme_of(offer.source) != "hf":
        return urllib.parse.urljoin(offer.source, urllib.parse.quote(name))
    address = parse_hub(offer.source)
    path = "/".join([*address.path.split("/")[:-1], name])
    return str(replace(address, path=path, revision=offer.revision or address.revision))


@dataclass
class Shards:
    """The files behind the index of a card's file; `got` are those that are here, by role."""

    file: File
    index: Obtained
    names: tuple[str, ...]
    got: dict[str, Obtained] = field(default_factory=dict)

    @classmethod
    def read(cls, file: File, index: Obtained) -> Shards:
        """Of an index that was fetched; raises `WeightsError` where it is none."""
        return cls(file, index, shard_names(index.path))

    @property
    def files(self) -> tuple[File, ...]:
        """One for each, as a card would describe it; the roles are numbered."""
        return tuple(
            replace(
                self.file,
                role=f"{self.file.role}-{number}",
                source=(beside(self.index.offer, name),),
                sha256=None,
                size=None,
            )
            for number, name in enumerate(self.names, start=1)
        )

    @property
    def complete(self) -> bool:
        """Whether all are here."""
        return len(self.got) == len(self.names)

    @contextmanager
    def whole(self) -> Iterator[Obtained]:
        """The checkpoint in a folder of its own, under the names that its index has, as one obtained file."""
        with tempfile.TemporaryDirectory() as folder:
            for file, name in zip(self.files, self.names, strict=True):
                (Path(folder) / name).symlink_to(self.got[file.role].path.absolute())
            index = Path(folder) / f"checkpoint{SUFFIX}"
            index.symlink_to(self.index.path.absolute())
            yield replace(self.index, path=index, digest_from=self._vouched, place="foreign")

    @property
    def _vouched(self) -> DigestFrom:
        """Nobody vouches for the whole where nobody does for one of its files."""
        said = {got.digest_from for got in (self.index, *self.got.values())}
        return "first pull" if "first pull" in said else self.index.digest_from
