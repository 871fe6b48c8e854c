"""From the lines of a prompt file to samples: checked against the model, with seeds, identities and groups.

Sample j of a line has the seed `seed + j`, where `seed` is the line's own or the command's: each line gives
what `zoo sample --prompt LINE` gives, wherever it stands. With distinct seeds a line without its own begins
where the lines before it end, and sample i of the file has the seed `seed + i`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput, ZooError
from zoo.io.finished import digest_of
from zoo.io.prompt_files import Line, Mistake, PromptFile, mistakes_error
from zoo.io.request import Request
from zoo.runtime.prepare import planned, prepare

if TYPE_CHECKING:
    from zoo.cards import Card, Variant
    from zoo.io.artifacts import Artifact
    from zoo.registry import Sampler
    from zoo.runtime.sampling import Item
    from zoo.session import Session


@dataclass(frozen=True)
class Settings:
    """What samples have in common that are drawn together. `options` are resolved, with all defaults.

    `makes` is the class of what the sampler makes.
    """

    sampler: str
    options: Mapping[str, Any]
    size: tuple[int, int] | None
    makes: type[Artifact]

    @cached_property
    def key(self) -> str:
        """Equal for equal settings."""
        return json.dumps([self.sampler, self.options, self.size], sort_keys=True, default=str)


@dataclass(frozen=True)
class Job:
    """One sample: number `index` of line `line`. `item` tells its seed and what it shows."""

    line: int
    index: int
    item: Item
    settings: Settings

    @property
    def kind(self) -> tuple[str, bool]:
        """What sort of condition it has: samples of one request are of one kind."""
        sort = "prompt" if self.item.prompt is not None else "class"
        return sort, self.item.negative is not None

    def digest(self, common: Mapping[str, Any]) -> str:
        """The identity of the sample; `common` is what all samples of the job share."""
        item = self.item
        own: dict[str, Any] = {
            "prompt": item.prompt,
            "class": item.class_id,
            "negative": item.negative,
            "seed": item.seed,
            "settings": self.settings.key,
        }
        if item.part_prompts:
            # Only then: samples that were finished before there were part prompts keep their identity.
            own["part_prompts"] = item.part_prompts
        return digest_of({**common, **own})


def read_jobs(
    session: Session, reference: str, file: PromptFile, defaults: Request, distinct_seeds: bool = False
) -> list[Job]:
    """Every sample of a file, in its order; `defaults` holds what a line leaves open.

    Reads no weights. Raises `InvalidInput` with all mistakes of all lines, or what is wrong without any line.
    """
    checker = _Checker(session, reference, defaults)
    jobs: list[Job] = []
    mistakes = list(file.mistakes)
    before = 0
    for line in file.lines:
        try:
            jobs += checker.jobs(line, before if distinct_seeds else 0)
        except ZooError as error:
            mistakes.append(Mistake(line.number, error.message, error.hint))
        before += line.num or defaults.num
    if mistakes:
        raise mistakes_error(file.name, mistakes)
    if not jobs:
        raise InvalidInput(f"{file.name} holds no prompt", "Write one prompt in each line.")
    return jobs


class _Checker:
    """Turns lines into jobs. What many lines share is worked out once: files have tens of thousands."""

    def __init__(self, session: Session, reference: str, defaults: Request) -> None:
        # What is wrong with the command itself is told once, not for each line.
        self._common = prepare(session, reference, defaults)
        self._session = session
        self._reference = reference
        self._defaults = defaults
        self._prepared: dict[str, tuple[Settings, Sampler]] = {}
        self._items: dict[tuple[object, ...], Item] = {}

    def jobs(self, line: Line, shift: int) -> list[Job]:
        """The samples of a line; raises what is wrong with it."""
        request = _request(line, self._defaults, shift)
        settings, sampler = self._settings_of(request)
        item = self._item_of(request, sampler)
        own = [dataclasses.replace(item, index=i, seed=request.seed_of(i)) for i in range(request.num)]
        return [Job(line.number, each.index, each, settings) for each in own]

    def _settings_of(self, request: Request) -> tuple[Settings, Sampler]:
        asked = [request.sampler, request.steps, request.guidance, request.size, request.options]
        key = json.dumps(asked, sort_keys=True)
        if key not in self._prepared:
            prepared = prepare(self._session, self._reference, request)
            options = dataclasses.asdict(prepared.options)
            settings = Settings(prepared.sampler.name, options, request.size, prepared.makes)
            self._prepared[key] = settings, prepared.sampler
        return self._prepared[key]

    def _item_of(self, request: Request, sampler: Sampler) -> Item:
        asked = (request.prompts, request.classes, request.negatives, request.part_prompts)
        key = (sampler.name, *asked)
        if key not in self._items:
            self._items[key] = planned(self._common.card, self._common.variant, sampler, request)[0]
        return self._items[key]


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in as few groups as possible that one request can draw, in the order of their first job."""
    found: dict[Any, list[Job]] = {}
    for job in jobs:
        found.setdefault((job.settings.key, job.kind), []).append(job)
    return list(found.values())


def group_request(group: Sequence[Job], batch_size: int | None) -> Request:
    """The request that draws a group, one sample for each job in order."""
    items, settings = [job.item for job in group], group[0].settings
    prompted = items[0].prompt is not None
    return Request(
        prompts=[item.prompt or "" for item in items] if prompted else (),
        classes=() if prompted else [item.class_id for item in items if item.class_id is not None],
        negatives=[item.negative for item in items if item.negative is not None],
        part_prompts=[item.part_prompts for item in items],
        seeds=[item.seed for item in items],
        size=settings.size,
        sampler=settings.sampler,
        options=settings.options,
        batch_size=batch_size,
    )


def weights_identity(card: Card, variant: Variant, given: str | None) -> dict[str, str]:
    """What tells the weights from others, by role: `sha256:<hex>` of each file.

    `given` are the user's own weights. A file whose digest nobody noted is read. Raises `NotPulled`,
    `WeightsError` or `InvalidInput`.
    """
    from zoo.store.hashing import file_sha256
    from zoo.store.locate import identity, locate

    paths = locate(card, variant, None if given is None else Path(given))
    known = {role: None if given else identity(card, variant, path) for role, path in paths.items()}
    return {role: known[role] or f"sha256:{file_sha256(path)}" for role, path in paths.items()}


def _request(line: Line, defaults: Request, shift: int) -> Request:
    negatives = defaults.negatives if line.negative is None else (line.negative,)
    return Request(
        prompts=() if line.prompt is None else (line.prompt,),
        classes=() if line.class_ is None else (line.class_,),
        negatives=negatives,
        part_prompts=line.part_prompts,
        size=line.size or defaults.size,
        num=line.num or defaults.num,
        seed=defaults.seed + shift if line.seed is None else line.seed,
        steps=line.steps or defaults.steps,
        guidance=defaults.guidance if line.guidance is None else line.guidance,
        sampler=line.sampler or defaults.sampler,
        options={**defaults.options, **line.options},
    )
