"""What a model of the shapes world is asked for, and how its pictures are marked.

Single objects ask for every combination of colour and shape. Pairs ask for two objects and how they stand to
each other, which only a model that reads captions can be asked. Sizes, position and background stay unsaid.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, permutations

from torch import Tensor

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.runtime.threads import cpu_threads
from zoo.shapes.captions import RELATIONS, Description, Mention, describe, matches, parse
from zoo.shapes.judging import Unjudgeable, judge
from zoo.shapes.scene import CLASSES, Scene

#: Prompts of two objects where nobody says how many: 240 that training showed, 80 with held-out combinations.
DEFAULT_PAIRS = 320

#: One question about several objects in so many holds a held-out combination.
_QUESTIONS_FOR_ONE_HELD_OUT = 4


@dataclass(frozen=True)
class Question:
    """One picture to ask for. `names` are the combinations of colour and shape that its prompt names.

    `held_out`: training left at least one of them out. `relation` is None for a single object.
    """

    prompt: str
    names: tuple[str, ...]
    held_out: bool
    relation: str | None = None

    @property
    def is_pair(self) -> bool:
        """Whether it asks for two objects."""
        return self.relation is not None


@dataclass(frozen=True)
class Answer:
    """A picture that was asked for. `seed` draws it again; `shows` is the scene that the judge sees in it."""

    question: Question
    seed: int
    correct: bool
    shows: str


def single_questions(names: Sequence[str], per_class: int, held_out: Collection[str]) -> list[Question]:
    """Each combination `per_class` times, one after the other."""
    questions = [Question(prompt_for([name]), (name,), name in held_out) for name in names]
    return [question for question in questions for _ in range(per_class)]


def pair_questions(count: int, seed: int, held_out: Collection[str]) -> list[Question]:
    """`count` prompts of two different objects: a function of the arguments alone.

    First those whose combinations training showed, then a quarter in which at least one object is of a
    held-out combination (none where there are no such combinations). Both parts are drawn evenly and ask for
    every relation equally often, to within one, as does the whole. No prompt comes twice while there are new
    ones.
    """
    random_numbers = random.Random(f"shapes pairs {count} {seed}")
    shown, new = combinations_of(2, held_out)
    first = seen_part(count, shown, new)
    in_turn = list(islice(cycle(RELATIONS), count))
    return [
        Question(prompt_for(names, relation), names, pool is new, relation)
        for pool, part in ((shown, in_turn[:first]), (new, in_turn[first:]))
        for relation in RELATIONS
        for names in drawn_evenly(random_numbers, pool, part.count(relation))
    ]


def mark(image: Image, question: Question, seed: int) -> Answer:
    """Judge a picture as `zoo.shapes.agrees` does. Raises `InvalidInput` for one that it cannot read."""
    scene, shows = look(image.pixels)
    return Answer(question, seed, scene is not None and matches(parse(question.prompt), scene), shows)


def look(pixels: Tensor) -> tuple[Scene | None, str]:
    """The scene that the judge sees in a picture [3, h, h] in [0, 1], None for an unclear one, and in words.

    Raises `InvalidInput` for pictures that nobody could judge: not square, not RGB, or too small.
    """
    try:
        # The judge's operations are far too small to share between threads.
        with cpu_threads(1):
            scene = judge(pixels)
    except Unjudgeable as refusal:
        return None, f"unclear: {refusal}"
    except ValueError as error:
        # The judge sees square RGB pictures from a certain size on; a model that makes others has no score.
        raise InvalidInput(f"the pictures of this model cannot be judged: {error}") from error
    return scene, str(describe(scene))


def prompt_for(names: Sequence[str], *relations: str, background: str | None = None) -> str:
    """The caption of combinations: "orange ring" -> "an orange ring"."""
    pairs = [name.split() for name in names]
    mentions = tuple(Mention(shape, colour) for colour, shape in pairs)
    return str(Description(mentions, relations, background=background))


def combinations_of(
    objects: int, held_out: Collection[str]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """All choices of so many different objects in order: those that training showed, and those it did not."""
    ordered = list(permutations(CLASSES, objects))
    left_out = set(held_out)
    shown = [names for names in ordered if left_out.isdisjoint(names)]
    return shown, [names for names in ordered if not left_out.isdisjoint(names)]


def seen_part(count: int, shown: Sequence[object], new: Sequence[object]) -> int:
    """How many of `count` questions are of what training showed: three quarters where there is both."""
    return count - (count // _QUESTIONS_FOR_ONE_HELD_OUT if new else 0) if shown else 0


def drawn_evenly(
    random_numbers: random.Random, pool: Sequence[tuple[str, ...]], count: int
) -> list[tuple[str, ...]]:
    """`count` entries, each as often as the others; which of them once more is drawn."""
    if not count:
        return []
    rounds, rest = divmod(count, len(pool))
    return [*pool] * rounds + random_numbers.sample(pool, rest)
