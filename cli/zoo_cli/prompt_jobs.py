"""From the lines of a prompt file to samples: checked against the model, with seeds, identities and groups.

Sample j of a line has the seed `seed + j`, where `seed` is the line's own or the command's: each line gives
what `zoo sample --prompt LINE` gives, wherever it stands. With distinct seeds a line without its own begins
where the lines before it end, and sample i of the file has the seed `seed + i`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InvalidInput, ZooError
from zoo.io.finished import digest_of
from zoo.io.prompt_files import Line, Mistake, PromptFile, mistakes_error
from zoo.io.request import Request
from zoo.runtime.components import check_components
from zoo.runtime.prepare import find_sampler, planned, prepare, sampler_options
from zoo_cli.input_pictures import PictureFile, PictureFiles

if TYPE_CHECKING:
    from zoo.cards import Card, Variant
    from zoo.io.artifacts import Artifact
    from zoo.io.inputs import InputImage
    from zoo.registry import Sampler
    from zoo.runtime.sampling import Item
    from zoo.session import Session

#: So many samples, and bytes of pixels, of one request: the pictures that it reads are held together.
MOST_WITH_PICTURES = 64
MOST_PICTURE_BYTES = 2**30


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
    """One sample: number `index` of line `line`. `item` tells its seed and what it shows.

    `pictures` are those that it is given, by role; the item does not hold them.
    """

    line: int
    index: int
    item: Item
    settings: Settings
    pictures: Mapping[str, PictureFile] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[str, bool, tuple[str, ...]]:
        """What sort of condition it has: samples of one request are of one kind."""
        sort = "prompt" if self.item.prompt is not None else "class"
        return sort, self.item.negative is not None, tuple(sorted(self.pictures))

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
        if self.pictures:
            # As with part prompts. A picture is the same wherever it lies.
            own["images"] = {role: picture.digest for role, picture in self.pictures.items()}
        return digest_of({**common, **own})


def read_jobs(
    session: Session,
    reference: str,
    file: PromptFile,
    defaults: Request,
    distinct_seeds: bool = False,
    images: Mapping[str, Path] | None = None,
    pictures: PictureFiles | None = None,
) -> list[Job]:
    """Every sample of a file, in its order; `defaults` holds what a line leaves open.

    images: the paths of pictures by role, for lines that name none of their own. pictures: where pictures are
    read. Reads no weights. Raises `InvalidInput` with all mistakes of all lines, or what is wrong without any
    line.
    """
    checker = _Checker(session, reference, defaults, file.folder, images or {}, pictures or PictureFiles())
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

    def __init__(
        self,
        session: Session,
        reference: str,
        defaults: Request,
        folder: Path,
        images: Mapping[str, Path],
        pictures: PictureFiles,
    ) -> None:
        self._session = session
        self._reference = reference
        self._defaults = defaults
        self._folder = folder
        self._images = images
        self._pictures = pictures
        self._prepared: dict[str, tuple[Settings, Sampler]] = {}
        self._items: dict[tuple[object, ...], Item] = {}
        self._card, self._variant = session.resolve(reference)
        self._check_common()

    def _check_common(self) -> None:
        """Tell what is wrong with the command itself once, not for each line."""
        card, variant, given = self._card, self._variant, self._defaults
        architecture = self._session.architecture(card, variant)
        sampler = find_sampler(self._session, card, variant, architecture, given.sampler, given.task)
        options = sampler_options(sampler, variant, given)
        if sampler.prompt != "required" and all(role in self._images for role in sampler.images):
            images = {role: self._pictures.read(path) for role, path in self._images.items()}
            planned(card, variant, sampler, dataclasses.replace(given, images=images))
        check_components(self._session, card, variant, options)

    def jobs(self, line: Line, shift: int) -> list[Job]:
        """The samples of a line; raises what is wrong with it."""
        own = {role: self._folder / Path(path).expanduser() for role, path in line.images.items()}
        paths = {**self._images, **own}
        images = {role: self._pictures.read(path) for role, path in paths.items()}
        pictures = {role: self._pictures.file(path) for role, path in paths.items()}
        request = _request(line, self._defaults, shift, images)
        settings, sampler = self._settings_of(request)
        item = self._item_of(request, sampler, tuple(pictures.items()))
        items = [dataclasses.replace(item, index=i, seed=request.seed_of(i)) for i in range(request.num)]
        return [Job(line.number, each.index, each, settings, pictures) for each in items]

    def _settings_of(self, request: Request) -> tuple[Settings, Sampler]:
        asked = [request.sampler, request.steps, request.guidance, request.size, request.options]
        key = json.dumps(asked, sort_keys=True)
        if key not in self._prepared:
            prepared = prepare(self._session, self._reference, request)
            options = dataclasses.asdict(prepared.options)
            settings = Settings(prepared.sampler.name, options, request.size, prepared.makes)
            self._prepared[key] = settings, prepared.sampler
        return self._prepared[key]

    def _item_of(self, request: Request, sampler: Sampler, pictures: tuple[object, ...]) -> Item:
        asked = (request.prompts, request.classes, request.negatives, request.part_prompts)
        key = (sampler.name, *asked, pictures)
        if key not in self._items:
            item = planned(self._card, self._variant, sampler, request)[0]
            self._items[key] = dataclasses.replace(item, images={})
        return self._items[key]


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in as few groups as possible that one request can draw, in the order of their first job."""
    found: dict[Any, list[Job]] = {}
    for job in jobs:
        found.setdefault((job.settings.key, job.kind), []).append(job)
    return [part for group in found.values() for part in _parts(group)]


def _parts(group: Sequence[Job]) -> Iterator[list[Job]]:
    """A group in parts whose pictures can be held together; one without pictures as it is."""
    part: list[Job] = []
    held: dict[str, int] = {}
    for job in group:
        more = {picture.digest: picture.bytes for picture in job.pictures.values()}
        full = sum({**held, **more}.values()) > MOST_PICTURE_BYTES or len(part) == MOST_WITH_PICTURES
        if part and more and full:
            yield part
            part, held = [], {}
        part.append(job)
        held |= more
    yield part


def group_request(
    group: Sequence[Job], batch_size: int | None, pictures: PictureFiles | None = None
) -> Request:
    """The request that draws a group, one sample for each job in order.

    pictures: where the pictures that they are given are read.
    """
    items, settings = [job.item for job in group], group[0].settings
    prompted = items[0].prompt is not None
    return Request(
        prompts=[item.prompt or "" for item in items] if prompted else (),
        classes=() if prompted else [item.class_id for item in items if item.class_id is not None],
        negatives=[item.negative for item in items if item.negative is not None],
        part_prompts=[item.part_prompts for item in items],
        images=_group_images(group, pictures or PictureFiles()),
        seeds=[item.seed for item in items],
        size=settings.size,
        sampler=settings.sampler,
        options=settings.options,
        batch_size=batch_size,
    )


def memory_request(group: Sequence[Job], batch_size: int | None) -> Request:
    """A request that takes as much memory as that of a group, without its texts and pictures."""
    settings = group[0].settings
    return Request(
        num=len(group),
        size=settings.size,
        sampler=settings.sampler,
        options=settings.options,
        batch_size=batch_size,
    )


def _group_images(group: Sequence[Job], pictures: PictureFiles) -> dict[str, list[InputImage]]:
    """The pictures of a group by role, one for each job; each file is read once."""
    paths = {picture.path for job in group for picture in job.pictures.values()}
    images = {path: pictures.read(path) for path in paths}
    return {role: [images[job.pictures[role].path] for job in group] for role in group[0].pictures}


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


def _request(line: Line, defaults: Request, shift: int, images: Mapping[str, InputImage]) -> Request:
    negatives = defaults.negatives if line.negative is None else (line.negative,)
    return Request(
        prompts=() if line.prompt is None else (line.prompt,),
        classes=() if line.class_ is None else (line.class_,),
        negatives=negatives,
        part_prompts=line.part_prompts,
        images=images,
        size=line.size or defaults.size,
        num=line.num or defaults.num,
        seed=defaults.seed + shift if line.seed is None else line.seed,
        steps=line.steps or defaults.steps,
        guidance=defaults.guidance if line.guidance is None else line.guidance,
        task=defaults.task,
        sampler=line.sampler or defaults.sampler,
        options={**defaults.options, **line.options},
    )
