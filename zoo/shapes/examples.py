"""Training examples of all tasks on the shapes world: functions of noise, true by construction."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from zoo.runtime.noise import NoiseSource
from zoo.shapes.batches import partly_described, whole_numbers
from zoo.shapes.captions import Description
from zoo.shapes.instructions import apply, draw_instruction
from zoo.shapes.questions import (
    DESCRIBE,
    answer_of,
    description_of,
    questions_about,
    text_answer_of,
    text_questions_about,
)
from zoo.shapes.scene import Scene, sample_scene
from zoo.shapes.splits import SEEN

#: How often scenes hold one, two and three objects.
OBJECTS = (0.35, 0.4, 0.25)
#: Share of questions about pictures that ask for the whole description, where nobody says which.
DESCRIBED = 0.5


@dataclass(frozen=True)
class Example:
    """One thing to learn. `task` is the name of a registered task; `prompt` is what a user would write.

    `given` is the scene in the picture that is read, `wanted` that in the picture to be made and `answer` the
    text to be written; None where a task has none.
    """

    task: str
    prompt: str
    given: Scene | None = None
    wanted: Scene | None = None
    answer: str | None = None


def drawn_examples(
    noise: NoiseSource,
    count: int,
    shares: Mapping[str, float],
    classes: Sequence[str] = SEEN,
    described: float = DESCRIBED,
) -> list[Example]:
    """Examples of tasks in the shares of `shares`, of combinations in `classes` alone, results of edits too.

    Drawing: captions that leave out the sizes, the position and the background as often as they say them.
    Editing: instructions of every kind. Describing: the whole description in a share `described`,
    else any question. Texts: any question that a caption answers.
    """
    makers: dict[str, Callable[[Scene, random.Random, Collection[str]], Example]] = {
        "text-to-image": _drawing,
        "image-editing": _editing,
        "image-to-text": partial(_describing, described=described),
        "text-to-text": _telling,
    }
    examples = []
    for seed in whole_numbers(noise, "example", count):
        rng = random.Random(seed)
        task = rng.choices(list(shares), list(shares.values()))[0]
        objects = rng.choices(range(1, 1 + len(OBJECTS)), OBJECTS)[0]
        scene = sample_scene(rng.getrandbits(48), (objects,), classes)
        examples.append(makers[task](scene, rng, classes))
    return examples


def _drawing(scene: Scene, rng: random.Random, classes: Collection[str]) -> Example:
    return Example("text-to-image", str(_partly(scene, rng)), wanted=scene)


def _editing(scene: Scene, rng: random.Random, classes: Collection[str]) -> Example:
    instruction = draw_instruction(scene, rng, classes)
    return Example("image-editing", str(instruction), given=scene, wanted=apply(instruction, scene))


def _describing(scene: Scene, rng: random.Random, classes: Collection[str], described: float) -> Example:
    if rng.random() < described:
        return Example("image-to-text", DESCRIBE, given=scene, answer=description_of(scene))
    _, *others = questions_about(scene)
    # Kinds in turn, as often as each other: some have many more questions than others.
    about = rng.choice(sorted({question.about for question in others}))
    question = rng.choice([other for other in others if other.about == about])
    return Example("image-to-text", str(question), given=scene, answer=answer_of(question, scene))


def _telling(scene: Scene, rng: random.Random, classes: Collection[str]) -> Example:
    asked = rng.choice(list(text_questions_about(_partly(scene, rng))))
    return Example("text-to-text", str(asked), answer=text_answer_of(asked))


def _partly(scene: Scene, rng: random.Random) -> Description:
    return partly_described(scene, *(rng.random() < 0.5 for _ in range(5)))
