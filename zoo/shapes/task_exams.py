"""What models of the shapes world are asked for beside drawing, and how their answers are marked.

There is an exam for every registered task but drawing: pictures to edit, to describe and to be asked about,
texts to answer, and pictures to be given back. A quarter of the questions holds combinations of colour and
shape that training left out, where there are such.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as numbers
from typing import Any, get_args

from zoo.io.artifacts import Image
from zoo.io.text import Text
from zoo.shapes.captions import CaptionError, Description, describe, parse
from zoo.shapes.exam import look, seen_part
from zoo.shapes.instructions import KINDS, apply, draw_instruction
from zoo.shapes.questions import (
    DESCRIBE,
    OPPOSITES,
    About,
    PictureQuestion,
    TextQuestion,
    answer_of,
    description_of,
    questions_about,
    text_answer_of,
    text_questions_about,
)
from zoo.shapes.rendering import render
from zoo.shapes.scene import BACKGROUNDS, CELLS, CLASSES, SIZES, Item, Scene, sample_scene

#: Questions of each kind where nobody says how many.
DEFAULT_QUESTIONS = 40
#: So many questions of a kind go with a single object of every combination.
_QUESTIONS_FOR_ANOTHER_ROUND = 20
#: Side of the pictures that are given, pixels.
SIDE = 32

FROM_OTHER_SIDE = "from the other side"
ONE_OBJECT = "one object: colour, shape, place"
NUMBERS = {1: "one object", 2: "two objects", 3: "three objects"}


@dataclass(frozen=True)
class TaskQuestion:
    """One thing to ask: a prompt, the scene in the picture that goes with it, and the right answer.

    `group` names the kind of question, and `held_out` says whether training left out a combination in it.
    `expected` is the scene that a picture has to show, or the text that has to be written.
    """

    prompt: str
    group: str
    held_out: bool
    expected: Scene | str
    given: Scene | None = None


@dataclass(frozen=True)
class TaskAnswer:
    """A marked answer. `seed` makes it again; `shows` is the text, or the scene that the judge sees."""

    question: TaskQuestion
    seed: int
    correct: bool
    shows: str

    @property
    def wanted(self) -> str:
        """The right answer in words."""
        expected = self.question.expected
        return expected if isinstance(expected, str) else description_of(expected)


@dataclass(frozen=True)
class TaskExam:
    """The exam of one task: what it asks, and whether an artifact answers a question.

    `mark` gives (correct, what the artifact shows), and raises `InvalidInput` for what nobody could judge.
    """

    task: str
    title: str
    questions: Callable[[int, int, Collection[str]], list[TaskQuestion]]
    mark: Callable[[TaskQuestion, Any], tuple[bool, str]]
    makes: type[Image] | type[Text]


def contents(scene: Scene) -> tuple[str, frozenset[tuple[str, str, str, tuple[int, int]]]]:
    """Everything of a scene that an exam compares: not displacements, nor the order of what lies in front."""
    items = frozenset((item.shape, item.colour, item.size, item.cell) for item in scene.items)
    return scene.background, items


def _scenes(
    rng: random.Random,
    count: int,
    held_out: Collection[str],
    objects: Sequence[int] = (1, 2, 3),
    fits: Callable[[Scene], object] = lambda scene: True,
) -> Iterator[tuple[Scene, bool]]:
    """Scenes that fit, numbers of objects in turn, and whether they hold a held-out combination.

    The last quarter does.
    """
    seen = [name for name in CLASSES if name not in held_out]
    first = seen_part(count, seen, list(held_out))
    for index in range(count):
        number, new = (objects[index % len(objects)],), index >= first
        classes = CLASSES if new else seen
        drawn = (sample_scene(rng.getrandbits(48), number, classes) for _ in numbers())
        yield next(scene for scene in drawn if new == _holds(scene, held_out) and fits(scene)), new


def _holds(scene: Scene, held_out: Collection[str]) -> bool:
    return any(item.name in held_out for item in scene.items)


# Editing


def editing_questions(count: int, seed: int, held_out: Collection[str]) -> list[TaskQuestion]:
    """`count` instructions of every kind for scenes of one to three objects.

    Held-out are those whose scene holds such a combination; the others do not become one either.
    """
    questions = []
    for kind in KINDS:
        rng = random.Random(f"shapes editing {kind} {seed}")
        seen = [name for name in CLASSES if name not in held_out]
        # The only object cannot be removed.
        objects = (2, 3) if kind == "remove" else (1, 2, 3)
        for scene, new in _scenes(rng, count, held_out, objects):
            instruction = draw_instruction(scene, rng, CLASSES if new else seen, kind)
            questions.append(TaskQuestion(str(instruction), kind, new, apply(instruction, scene), scene))
    return questions


def shows_scene(question: TaskQuestion, image: Image) -> tuple[bool, str]:
    """Whether a picture shows exactly the expected scene."""
    assert isinstance(question.expected, Scene), question
    scene, shows = look(image.pixels)
    return scene is not None and contents(scene) == contents(question.expected), shows


# Describing and asking about pictures


def describing_questions(count: int, seed: int, held_out: Collection[str]) -> list[TaskQuestion]:
    """Descriptions of single objects and of two, and `count` questions of every kind.

    Single objects are of every combination in turn, twice each where `count` is 40.
    """
    rng = random.Random(f"shapes describing {seed}")
    each = max(1, count // _QUESTIONS_FOR_ANOTHER_ROUND)
    singles = [
        TaskQuestion(DESCRIBE, ONE_OBJECT, scene.items[0].name in held_out, description_of(scene), scene)
        for name in CLASSES
        for scene in [_single(rng, name) for _ in range(each)]
    ]
    pairs = [
        TaskQuestion(DESCRIBE, "two objects: everything", new, description_of(scene), scene)
        for scene, new in _scenes(rng, count, held_out, (2,))
    ]
    asked = [
        _asked(rng.choice(_about(about, scene)), scene, new)
        for about in get_args(About)
        if about != "all"
        for scene, new in _scenes(
            # With more objects most relations have several answers, with one there is none.
            rng,
            count,
            held_out,
            (2,) if about == "relation" else (1, 2, 3),
            partial(_about, about),
        )
    ]
    return [*singles, *pairs, *asked]


def _single(rng: random.Random, name: str) -> Scene:
    colour, shape = name.split()
    scene = sample_scene(rng.getrandbits(48), (1,), (name,))
    offset = scene.items[0].offset
    item = Item(shape, colour, rng.choice(list(SIZES)), rng.choice(CELLS), offset)
    return Scene(rng.choice(list(BACKGROUNDS)), (item,))


def _about(about: About, scene: Scene) -> list[PictureQuestion]:
    """The questions of a kind that can be asked about a scene."""
    return [question for question in questions_about(scene) if question.about == about]


def _asked(question: PictureQuestion, scene: Scene, new: bool) -> TaskQuestion:
    return TaskQuestion(str(question), f"question: {question.about}", new, answer_of(question, scene), scene)


def says(question: TaskQuestion, text: Text) -> tuple[bool, str]:
    """Whether a text is the right answer.

    Of single objects only colour, shape and place count; descriptions of several may name objects in another
    order, as long as everything is said and true.
    """
    assert question.given is not None, question
    if question.prompt != DESCRIBE:
        return text.text == question.expected, text.text
    said = _description(text.text)
    if said is None:
        return False, text.text
    scene = question.given
    if question.group == ONE_OBJECT:
        item, first = scene.items[0], said.objects[0]
        named = (first.colour, first.shape, said.cell) == (item.colour, item.shape, item.cell)
        return named and len(said.objects) == 1, text.text
    return _says_everything(said, scene), text.text


def _description(text: str) -> Description | None:
    try:
        return parse(text)
    except CaptionError:
        return None


def _says_everything(said: Description, scene: Scene) -> bool:
    """Whether a description is the full one of a scene, whichever object it begins with."""
    orders = (scene, Scene(scene.background, scene.items[::-1]))
    return any(said == describe(order) for order in orders)


# Texts


def telling_questions(count: int, seed: int, held_out: Collection[str]) -> list[TaskQuestion]:
    """`count` texts of every kind: questions about captions of two objects, and captions to turn round."""
    rng = random.Random(f"shapes telling {seed}")
    questions = []
    for group in ("colour", "relation", "number", "background", FROM_OTHER_SIDE):
        for scene, new in _scenes(rng, count, held_out, (2,), partial(_told, group)):
            asked = rng.choice(_told(group, scene))
            questions.append(TaskQuestion(str(asked), group, new, text_answer_of(asked)))
    return questions


def _told(group: str, scene: Scene) -> list[TextQuestion]:
    """The texts of a group about the full caption of a scene."""
    return [
        text
        for text in text_questions_about(describe(scene))
        if (text.question.about if text.question else FROM_OTHER_SIDE) == group
    ]


def is_answer(question: TaskQuestion, text: Text) -> tuple[bool, str]:
    """Whether a text is exactly the expected one."""
    return text.text == question.expected, text.text


# Pictures given back


def rebuilding_questions(count: int, seed: int, held_out: Collection[str]) -> list[TaskQuestion]:
    """Twice `count` pictures of each number of objects."""
    return [
        TaskQuestion("", name, new, scene, scene)
        for number, name in NUMBERS.items()
        for scene, new in _scenes(
            random.Random(f"shapes rebuilding {number} {seed}"), 2 * count, held_out, (number,)
        )
    ]


def shows_the_same(question: TaskQuestion, image: Image) -> tuple[bool, str]:
    """Whether the judge sees in a picture what it sees in the one that was given."""
    assert question.given is not None, question
    before, _ = look(render(question.given, SIDE))
    after, shows = look(image.pixels)
    if before is None or after is None:
        return False, shows
    return contents(before) == contents(after), shows


# A picture that was drawn, described


def round_trip_questions(prompts: Sequence[tuple[str, bool]]) -> list[TaskQuestion]:
    """A description for each picture, given the prompts that drew them and whether these are held out."""
    groups = [NUMBERS[len(parse(prompt).objects)] for prompt, _ in prompts]
    return [
        TaskQuestion(DESCRIBE, group, new, prompt)
        for group, (prompt, new) in zip(groups, prompts, strict=True)
    ]


def agrees_with_prompt(question: TaskQuestion, text: Text) -> tuple[bool, str]:
    """Whether a description names the objects of the prompt and nothing that contradicts it.

    A description says one relation, where another one may be true too: the prompt's counts as contradicted
    where the description says its opposite.
    """
    said, asked = _description(text.text), parse(str(question.expected))
    if said is None or len(said.objects) != len(asked.objects):
        return False, text.text
    described = [(mention.colour, mention.shape) for mention in said.objects]
    wanted = [(mention.colour, mention.shape) for mention in asked.objects]
    if not asked.relations:
        return described == wanted, text.text
    if described == wanted:
        return said.relations[0] != OPPOSITES[asked.relations[0]], text.text
    return described == wanted[::-1] and said.relations[0] != asked.relations[0], text.text


#: Drawing, then describing what was drawn; its questions are `round_trip_questions`.
ROUND_TRIP = TaskExam("round-trip", "drawn, then described", lambda *_: [], agrees_with_prompt, Text)

#: The exams by the names of registered tasks, in the order in which they are held and reported.
EXAMS = {
    exam.task: exam
    for exam in (
        TaskExam("image-to-text", "describing", describing_questions, says, Text),
        TaskExam("image-editing", "editing", editing_questions, shows_scene, Image),
        TaskExam("text-to-text", "answering texts", telling_questions, is_answer, Text),
        TaskExam("reconstruction", "reconstruction", rebuilding_questions, shows_the_same, Image),
    )
}
