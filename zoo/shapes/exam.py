"""What a model of the shapes world is asked for, and how its pictures are marked.

Single objects ask for every combination of colour and shape. Pairs ask for two objects and how they stand to
each other, which only a model that reads captions can be asked. Sizes, position and background stay unsaid.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, permutations

from zoo.errors import InvalidInput
from zoo.io.artifacts import Image
from zoo.runtime.threads import cpu_threads
from zoo.shapes.captions import RELATIONS, Description, Mention, describe, matches, parse
from zoo.shapes.judging import Unjudgeable, judge
from zoo.shapes.scene import CLASSES

#: Prompts of two objects where nobody says how many: 240 that training showed, 80 with held-out combinations.
DEFAULT_PAIRS = 320

#: One pair in so many holds a held-out combination.
_PAIRS_FOR_ONE_HELD_OUT = 4


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
    questions = [Question(_prompt([name]), (name,), name in held_out) for name in names]
    return [question for question in questions for _ in range(per_class)]


def pair_questions(count: int, seed: int, held_out: Collection[str]) -> list[Question]:
    """`count` prompts of two different objects: a function of the arguments alone.

    First those whose combinations training showed, then a quarter in which at least one object is of a
    held-out combination (none where there are no such combinations). Both parts are drawn evenly and ask for
    every relation equally often, to within one, as does the whole. No prompt comes twice while there are new
    ones.
    """
    random_numbers = random.Random(f"shapes pairs {count} {seed}")
    ordered = list(permutations(CLASSES, 2))
    new = [names for names in ordered if not set(names).isdisjoint(held_out)]
    shown = [names for names in ordered if set(names).isdisjoint(held_out)]
    last = count // _PAIRS_FOR_ONE_HELD_OUT if new else 0
    first = count - last if shown else 0
    in_turn = list(islice(cycle(RELATIONS), count))
    return [
        Question(_prompt(names, relation), names, pool is new, relation)
        for pool, part in ((shown, in_turn[:first]), (new, in_turn[first:]))
        for relation in RELATIONS
        for names in _drawn(random_numbers, pool, part.count(relation))
    ]


def mark(image: Image, question: Question, seed: int) -> Answer:
    """Judge a picture as `zoo.shapes.agrees` does. Raises `InvalidInput` for one that it cannot read."""
    try:
        # The judge's operations are far too small to share between threads.
        with cpu_threads(1):
            scene = judge(image.pixels)
    except Unjudgeable as refusal:
        return Answer(question, seed, False, f"unclear: {refusal}")
    except ValueError as error:
        # The judge sees square RGB pictures from a certain size on; a model that makes others has no score.
        raise InvalidInput(f"the pictures of this model cannot be judged: {error}") from error
    return Answer(question, seed, matches(parse(question.prompt), scene), str(describe(scene)))


def _prompt(names: Sequence[str], *relations: str) -> str:
    """The caption of combinations: "orange ring" -> "an orange ring"."""
    pairs = [name.split() for name in names]
    return str(Description(tuple(Mention(shape, colour) for colour, shape in pairs), relations))


def _drawn(
    random_numbers: random.Random, pool: Sequence[tuple[str, ...]], count: int
) -> list[tuple[str, ...]]:
    """`count` entries, each as often as the others; which of them once more is drawn."""
    if not count:
        return []
    rounds, rest = divmod(count, len(pool))
    return [*pool] * rounds + random_numbers.sample(pool, rest)
