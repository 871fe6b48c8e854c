"""How the built-in `illume:shapes` is trained: drawing, editing, describing and answering, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import WeightsError, ZooError
from zoo.runtime.noise import NoiseSource
from zoo.shapes.examples import DESCRIBED, Example, drawn_examples
from zoo.shapes.rendering import render_all
from zoo.shapes.scene import Scene
from zoo.shapes.splits import HELD_OUT
from zoo.training.recipe import Budget
from zoo_illume.dualvitok import DualViTok
from zoo_illume.initialising import aligned_heads, neighbouring_codes, see_as_tokenizer
from zoo_illume.model import IllumePlus
from zoo_illume.model_config import PICTURE, IllumeConfig
from zoo_illume.prompting import Prompts
from zoo_illume.words import Words, WordsConfig

#: Side of the pictures, pixels.
SIZE = 32
#: How often each task is trained in the first stage, and in the second.
SHARES = {"text-to-image": 0.40, "image-editing": 0.35, "image-to-text": 0.20, "text-to-text": 0.05}
NAMES_SHARES = {"text-to-image": 0.20, "image-editing": 0.45, "image-to-text": 0.30, "text-to-text": 0.05}
#: Share of drawings and edits whose prompt is left out, which guidance needs.
PROMPT_DROP = 0.1
#: Share of the pictures to read that are as the tokenizer draws them, which is how the model's own look.
REBUILT = 0.25
#: Tokens that a row's loss is divided by: those of a picture that the model chooses.
ANSWER = 80.0
#: Stands where nothing is to be predicted.
NOTHING = -100


@dataclass(frozen=True)
class Setting:
    """What the card says of the model: its configuration, and its prompts as ids."""

    config: IllumeConfig
    prompts: Prompts

    @classmethod
    def of(cls, reference: str) -> Setting:
        """Read from the card of a variant; nothing is loaded."""
        from zoo.session import default_session

        _, variant = default_session().resolve(reference)
        config = IllumeConfig(**variant.config)
        words = Words(WordsConfig(**variant.components["text_tokenizer"].config))
        return cls(config, Prompts(config.formats, words, config.tokens))


class ShapesTasks:
    """Cross-entropy of what the model chooses: codes of pictures, words of answers, and where both end.

    Tokens that order a picture are read but not learnt, since nothing else may stand in their places; so are
    prompts. Pictures to be made are the codes of the small tokenizer, which stays as it is. A prompt that is
    left out asks for any picture, or for the given picture as it is.
    """

    seed = 0
    held_out = HELD_OUT  #: combinations that the scenes never show
    budget: Budget
    shares: Mapping[str, float]  #: of the tasks
    described = DESCRIBED  #: share of questions about pictures that ask for the whole description

    def __init__(
        self, reference: str = "illume:shapes", tokenizer: str | DualViTok = "illume:shapes-tokenizer"
    ) -> None:
        """`reference` is the card that is trained by; `tokenizer` is loaded when it is first needed."""
        self.reference = reference
        self._tokenizer = tokenizer

    @cached_property
    def setting(self) -> Setting:
        """Of the card."""
        return Setting.of(self.reference)

    @cached_property
    def tokenizer(self) -> DualViTok:
        """The frozen tokenizer; raises `WeightsError` where its weights are not there."""
        if isinstance(self._tokenizer, DualViTok):
            return self._tokenizer.eval().requires_grad_(False)
        from zoo.runtime.model import load

        try:
            loaded = load(self._tokenizer, device="cpu", dtype="float32")
        except ZooError as error:
            raise WeightsError(
                f"{self.reference} is trained with the codes of {self._tokenizer}, which cannot be loaded: "
                f"{error.message}",
                f"Train it first: zoo train {self._tokenizer}; its card then names the weights.",
            ) from error
        return cast(DualViTok, loaded.model)

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """`size` sequences, task by task, padded on the right to the longest.

        ids: int64 [size, tokens], with `PICTURE` wherever an embedding of the given picture stands.
        targets: int64 [size, tokens], what follows each token, `NOTHING` where that is not learnt.
        lengths: int64 [size].
        given: [size, 3, 32, 32] in [-1, 1], the pictures that are read, zeros for rows without.
        """
        # By task, so that the trainer's slices, which are dealt out row by row, have as much to do.
        examples = drawn_examples(noise, size, self.shares, described=self.described)
        examples.sort(key=lambda example: example.task)
        dropped = (noise.uniform("drop", (size,)) < PROMPT_DROP).tolist()
        codes = iter(self._written([wanted(*row) for row in zip(examples, dropped, strict=True)]))
        rows = [
            self._sequence(example, drop, next(codes))
            for example, drop in zip(examples, dropped, strict=True)
        ]
        ids, targets = zip(*rows, strict=True)
        rebuilt = (noise.uniform("rebuilt", (size,)) < REBUILT).tolist()
        return {
            "ids": pad_sequence(list(ids), batch_first=True, padding_value=0),
            "targets": pad_sequence(list(targets), batch_first=True, padding_value=NOTHING),
            "lengths": torch.tensor([len(row) for row in ids]),
            "given": self._given([example.given for example in examples], rebuilt),
        }

    def _given(self, scenes: Sequence[Scene | None], rebuilt: Sequence[bool]) -> Tensor:
        """The picture of each scene, zeros for None, or what the tokenizer keeps of it."""
        given = torch.zeros(len(scenes), 3, SIZE, SIZE)
        shown = [index for index, scene in enumerate(scenes) if scene is not None]
        if shown:
            given[shown] = _pictures([scene for scene in scenes if scene is not None])
        again = [index for index in shown if rebuilt[index]]
        if again:
            with torch.no_grad():
                given[again] = self.tokenizer(given[again]).images.clamp(-1.0, 1.0)
        return given

    def _written(self, scenes: Sequence[Scene | None]) -> list[list[int]]:
        """The tokens of the picture of each scene, from its start to its end; [] for None."""
        shown = [scene for scene in scenes if scene is not None]
        if not shown:
            return [[] for _ in scenes]
        with torch.no_grad():
            semantic, pixel = self.tokenizer.indices(_pictures(shown))
        tokens = self.setting.config.tokens
        written = iter(picture_tokens(tokens, maps) for maps in zip(semantic, pixel, strict=True))
        return [[] if scene is None else next(written) for scene in scenes]

    def _sequence(self, example: Example, drop: bool, picture: list[int]) -> tuple[Tensor, Tensor]:
        """Ids and targets [tokens] of one row; `picture` are the tokens of the picture to be made."""
        setting = self.setting
        tokens, end = setting.config.tokens, [setting.config.tokens.end_of_text]
        prompt = self._prompt(example, drop)
        if picture:
            answer, chosen = picture + end, [*_chosen(tokens, picture), True]
        else:
            answer = setting.prompts.tokenizer.encode(str(example.answer)) + end
            chosen = [True] * len(answer)
        ids = torch.tensor(prompt + answer)
        following = torch.tensor([NOTHING] * len(prompt) + answer)[1:]
        learnt = torch.tensor([False] * len(prompt) + chosen)[1:]
        # The last token is followed by nothing.
        return ids[:-1], torch.where(learnt, following, NOTHING)

    def _prompt(self, example: Example, drop: bool) -> list[int]:
        """The ids in front of the answer, `PICTURE` as often as the given picture has embeddings."""
        prompts, size = self.setting.prompts, (SIZE, SIZE)
        if example.task == "text-to-image":
            ids = prompts.draw(None if drop else example.prompt, size)
        elif example.task == "image-editing":
            ids = prompts.edit(None if drop else example.prompt, size)
        elif example.task == "image-to-text":
            ids = prompts.ask(example.prompt)
        else:
            ids = prompts.write(example.prompt)
        read = self.setting.config.picture_tokens(*size)
        return [part for number in ids for part in ([PICTURE] * read if number == PICTURE else [number])]

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """Each row's summed cross-entropy in `ANSWER`s, their mean; nothing is drawn from `noise`."""
        illume = cast(IllumePlus, model)
        total = batch["given"].new_zeros(())
        for rows in _of_like_length(batch["lengths"]):
            part = {name: tensor[rows] for name, tensor in batch.items()}
            total = total + _summed(illume, part)
        return total / (ANSWER * len(batch["ids"]))


class ShapesRecipe(ShapesTasks):
    """The first stage: all tasks, from fresh weights."""

    budget = Budget(
        steps=12_000,
        batch_size=64,
        learning_rate=1e-3,
        final_learning_rate=1e-5,
        warmup_steps=500,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.999,
        autocast="bfloat16",
    )
    shares = SHARES

    @cached_property
    def next_stage(self) -> ShapesNamesRecipe:
        """The stage that follows, of the same card and tokenizer."""
        return ShapesNamesRecipe(self.reference, self._tokenizer)

    def initialise(self, model: nn.Module, noise: NoiseSource) -> None:
        """Eyes and embeddings that follow the tokenizer, and heads that find what is to be copied."""
        illume, tokenizer = cast(IllumePlus, model), self.tokenizer
        see_as_tokenizer(illume, tokenizer)
        neighbouring_codes(illume, tokenizer, noise)
        aligned_heads(illume.language_model, self._back_to_given())

    def _back_to_given(self) -> int:
        """Tokens from where a code of an edit is chosen back to the same place of the given picture.

        It is the same for all codes, as long as nothing of the user's stands between the two pictures.
        """
        prompt = self.setting.prompts.edit(None, (SIZE, SIZE))
        between = len(prompt) - 1 - prompt.index(PICTURE)
        return self.setting.config.picture_tokens(SIZE, SIZE) + between - 1


class ShapesNamesRecipe(ShapesTasks):
    """The second stage: more of what asks the model to find the object that a name means.

    After the first one, drawing and describing are learnt, while most questions about one of several
    objects are guessed, and edits change the wrong one.
    """

    budget = replace(ShapesRecipe.budget, steps=8_000, warmup_steps=200)
    shares = NAMES_SHARES
    described = 0.25


def wanted(example: Example, drop: bool) -> Scene | None:
    """The scene of the picture to be made: without an instruction, the one that was given."""
    return example.given if drop and example.task == "image-editing" else example.wanted


def picture_tokens(tokens: Any, maps: Sequence[Tensor]) -> list[int]:
    """Codes [rows, columns] of each level as the ids of a picture, from its start to its end."""
    ids = [tokens.start_of_image]
    for level, codes in enumerate(maps):
        ids.append(tokens.start_of_level[level])
        for line in codes.tolist():
            ids += [tokens.first_code[level] + code for code in line]
            ids.append(tokens.end_of_line)
        ids.append(tokens.end_of_level[level])
    return [*ids, tokens.end_of_image]


def _chosen(tokens: Any, picture: Sequence[int]) -> list[bool]:
    """Of each token of a picture, whether another one could stand in its place: its start, and codes."""
    ranges = tokens.interleaved().codes
    return [
        number == tokens.start_of_image or any(first <= number < behind for first, behind in ranges)
        for number in picture
    ]


def _summed(model: IllumePlus, part: dict[str, Tensor]) -> Tensor:
    """The cross-entropies of all targets of some rows, added up."""
    longest = int(part["lengths"].max())
    ids, targets = part["ids"][:, :longest], part["targets"][:, :longest]
    places = ids == PICTURE
    embedded = model.embed(ids.masked_fill(places, 0))
    reading = places.any(dim=1)
    if bool(reading.any()):
        pictures = model.read(part["given"][reading])
        embedded = embedded.masked_scatter(places.unsqueeze(2), pictures.to(embedded.dtype))
    # Padding is on the right, where no token of a row looks.
    hidden = model.language_model.hidden(embedded)
    learnt = targets != NOTHING
    logits = model.language_model.logits(hidden[learnt])
    return F.cross_entropy(logits.float(), targets[learnt], reduction="sum")


def _of_like_length(lengths: Tensor) -> Iterator[Tensor]:
    """The rows in groups: those up to two thirds of the longest, and the others, which are edits."""
    short = lengths * 3 <= int(lengths.max()) * 2
    for group in (short, ~short):
        if bool(group.any()):
            yield group.nonzero().flatten()


def _pictures(scenes: Sequence[Scene]) -> Tensor:
    """[n, 3, 32, 32] in [-1, 1]."""
    return render_all(scenes, SIZE) * 2.0 - 1.0
