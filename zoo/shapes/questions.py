"""Questions about pictures and about captions: closed grammars, each question with one exact answer.

    question = "describe the picture"                      the whole caption
             | "what colour is " name | "what colour is the background" | "what size is " name
             | "where is " name                            "at the top left"
             | "what shape is " position                   "ring"
             | "what is " relation " " name                "a red ring"
             | "how many objects are there"                "two"
    telling  = caption ". " question
             | "say it from " name ": " caption            the same, the other object first

Names, relations and positions are those of `zoo.shapes.naming` and `zoo.shapes.captions`. A question can be
asked where its name fits one object, and one object is the answer. Descriptions name objects from the top
left to the bottom right, since nobody can see in which order they were listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zoo.shapes.captions import (
    POSITIONS,
    RELATIONS,
    CaptionError,
    Description,
    Mention,
    describe,
    is_related,
    parse,
)
from zoo.shapes.naming import Name, names_of, read_name
from zoo.shapes.phrases import PhraseReader
from zoo.shapes.scene import Item, Scene

About = Literal["all", "colour", "background", "size", "place", "shape", "relation", "number"]

#: What is asked where nobody asks anything.
DESCRIBE = "describe the picture"
_BACKGROUND = "what colour is the background"
_NUMBER = "how many objects are there"
_NUMBERS = ("no", "one", "two", "three")
_SAY_IT_FROM = "say it from"
#: What a relation is, seen from the other object.
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

#: Words of questions and their answers beside those of captions.
FIXED_WORDS = tuple(
    sorted({"what", "is", "where", "size", "shape", "colour"})
    + sorted({word for text in (DESCRIBE, _BACKGROUND, _NUMBER, _SAY_IT_FROM) for word in text.split()})
    + [*_NUMBERS[1:]]
)

#: With these words questions begin, and no caption goes on.
_BEGINNINGS = ("what", "where", "how", "describe")


class QuestionError(ValueError):
    """Text that is no question, or a question that has not one answer."""


@dataclass(frozen=True)
class PictureQuestion:
    """One question; `str` writes it as text and `parse_question` reads it back.

    `name` is of whom it is asked, `phrase` the position or relation in it; None where the kind has none.
    """

    about: About
    name: Name | None = None
    phrase: str | None = None

    def __str__(self) -> str:
        fixed = {"all": DESCRIBE, "background": _BACKGROUND, "number": _NUMBER}
        if self.about in fixed:
            return fixed[self.about]
        if self.about == "place":
            return f"where is {self.name}"
        if self.about == "shape":
            return f"what shape is {self.phrase}"
        if self.about == "relation":
            return f"what is {self.phrase} {self.name}"
        return f"what {self.about} is {self.name}"


def parse_question(text: str) -> PictureQuestion:
    """What a question asks. Case and spacing do not matter. Raises `QuestionError` for other texts."""
    reader = PhraseReader(text, "a question", QuestionError)
    question = _read_question(reader)
    reader.finish()
    return question


def _read_question(reader: PhraseReader) -> PictureQuestion:
    begun = reader.need(
        [
            DESCRIBE,
            _BACKGROUND,
            _NUMBER,
            "where is",
            "what shape is",
            "what colour is",
            "what size is",
            "what is",
        ]
    )
    if begun == DESCRIBE:
        return PictureQuestion("all")
    if begun == _BACKGROUND:
        return PictureQuestion("background")
    if begun == _NUMBER:
        return PictureQuestion("number")
    if begun == "what shape is":
        return PictureQuestion("shape", None, reader.need(POSITIONS))
    phrase = reader.need(RELATIONS) if begun == "what is" else None
    asked: dict[str, About] = {
        "where is": "place",
        "what colour is": "colour",
        "what size is": "size",
        "what is": "relation",
    }
    return PictureQuestion(asked[begun], read_name(reader), phrase)


def in_reading_order(scene: Scene) -> Scene:
    """The scene with its objects listed from the top left to the bottom right, whatever lies in front."""
    return replace(scene, items=tuple(sorted(scene.items, key=lambda item: item.cell)))


def description_of(scene: Scene) -> str:
    """All that a caption can say of a scene, objects in reading order."""
    return str(describe(in_reading_order(scene)))


def answer_of(question: PictureQuestion, scene: Scene) -> str:
    """The answer that is true of a scene; raises `QuestionError` where there is not one."""
    if question.about == "all":
        return description_of(scene)
    if question.about == "background":
        return scene.background
    if question.about == "number":
        return _NUMBERS[len(scene.items)]
    if question.about == "shape":
        standing = [item for item in scene.items if item.cell == POSITIONS[str(question.phrase)]]
        return _only(standing, question).shape
    index = _index(question, scene.items)
    item = scene.items[index]
    if question.about == "relation":
        others = [other for number, other in enumerate(scene.items) if number != index]
        related = [other for other in others if is_related(str(question.phrase), other, item)]
        found = _only(related, question)
        return str(Mention(found.shape, found.colour))
    if question.about == "place":
        return next(position for position, cell in POSITIONS.items() if cell == item.cell)
    return item.colour if question.about == "colour" else item.size


def _index(question: PictureQuestion, things: Sequence[Item | Mention]) -> int:
    assert question.name is not None, question.about
    index = question.name.found(things)
    if index is None:
        raise QuestionError(f"'{question}' has not one answer: {question.name} is not one object")
    return index


def _only(items: Sequence[Item], question: PictureQuestion) -> Item:
    if len(items) != 1:
        raise QuestionError(f"'{question}' has not one answer: there are {len(items)} such objects")
    return items[0]


def questions_about(scene: Scene) -> Iterator[PictureQuestion]:
    """Every question that has one answer in a scene and does not say it, names as short as they may be.

    Colours are asked of shapes alone, places and sizes of objects by colour and shape.
    """
    yield PictureQuestion("all")
    yield PictureQuestion("background")
    yield PictureQuestion("number")
    for index, item in enumerate(scene.items):
        full = Name(item.shape, item.colour)
        by_shape = Name(item.shape)
        if by_shape.found(scene.items) == index:
            yield PictureQuestion("colour", by_shape)
        yield PictureQuestion("place", full)
        yield PictureQuestion("size", full)
        yield PictureQuestion("shape", None, answer_of(PictureQuestion("place", full), scene))
        for relation in RELATIONS:
            asked = PictureQuestion("relation", full, relation)
            if sum(is_related(relation, other, item) for other in scene.items) == 1:
                yield asked


@dataclass(frozen=True)
class TextQuestion:
    """A caption and what to tell of it: a question, or, with `start`, itself from another object.

    `str` writes it as text and `parse_text_question` reads it back. Questions are those of `about` "colour",
    "relation", "number" and "background" alone: a caption says nothing else of every scene.
    """

    caption: Description
    question: PictureQuestion | None = None
    start: Name | None = None

    def __str__(self) -> str:
        if self.start is not None:
            return f"{_SAY_IT_FROM} {self.start}: {self.caption}"
        return f"{self.caption}. {self.question}"


def parse_text_question(text: str) -> TextQuestion:
    """What a text asks. Case, spacing and its punctuation do not matter.

    Raises `QuestionError` for other texts.
    """
    plain = " ".join(text.lower().replace(".", " ").replace(":", " ").replace("?", " ").split())
    if plain.startswith(f"{_SAY_IT_FROM} "):
        reader = PhraseReader(plain, "a text to answer", QuestionError)
        reader.need([_SAY_IT_FROM])
        start = read_name(reader)
        return TextQuestion(_caption(" ".join(reader.words[reader.at :])), start=start)
    words = plain.split()
    begins = next((at for at, word in enumerate(words) if word in _BEGINNINGS), None)
    if begins is None:
        raise QuestionError(
            f"not a text to answer: expected a caption and a question, or '{_SAY_IT_FROM}', got {plain!r}"
        )
    question = parse_question(" ".join(words[begins:]))
    if question.about not in ("colour", "relation", "number", "background"):
        raise QuestionError(f"not a text to answer: a caption does not answer '{question}'")
    return TextQuestion(_caption(" ".join(words[:begins])), question)


def _caption(text: str) -> Description:
    try:
        return parse(text)
    except CaptionError as error:
        raise QuestionError(str(error)) from error


def text_answer_of(asked: TextQuestion) -> str:
    """The answer that a caption gives; raises `QuestionError` where it gives none, or several."""
    said = asked.caption
    if asked.start is not None:
        return str(_from(said, asked.start))
    question = asked.question
    assert question is not None
    if question.about == "number":
        return _NUMBERS[len(said.objects)]
    if question.about == "background":
        if said.background is None:
            raise QuestionError(f"'{said}' does not say its background")
        return said.background
    index = _index(question, said.objects)
    if question.about == "colour":
        return said.objects[index].colour
    related = [mention for mention, relation in _beside(said, index) if relation == question.phrase]
    if len(related) != 1:
        raise QuestionError(f"'{said}' does not say {question}")
    return str(Mention(related[0].shape, related[0].colour))


def _beside(said: Description, index: int) -> Iterator[tuple[Mention, str]]:
    """The objects that a caption relates to one of its objects, and how they stand to it."""
    if index > 0:
        yield said.objects[index - 1], said.relations[index - 1]
    if index + 1 < len(said.objects):
        yield said.objects[index + 1], OPPOSITES[said.relations[index]]


def _from(said: Description, start: Name) -> Description:
    """The same of two objects, told from the other one."""
    if len(said.objects) != 2:
        raise QuestionError(
            f"'{said}' names {len(said.objects)} objects, expected two to say it from another"
        )
    if start.found(said.objects) != 1:
        raise QuestionError(f"{start} is not the second object of '{said}'")
    return replace(said, objects=said.objects[::-1], relations=(OPPOSITES[said.relations[0]],))


def text_questions_about(said: Description) -> Iterator[TextQuestion]:
    """Every text about a caption that has one answer, names as short as they may be."""
    yield TextQuestion(said, PictureQuestion("number"))
    if said.background is not None:
        yield TextQuestion(said, PictureQuestion("background"))
    for index, mention in enumerate(said.objects):
        if Name(mention.shape).found(said.objects) == index:
            yield TextQuestion(said, PictureQuestion("colour", Name(mention.shape)))
        full = Name(mention.shape, mention.colour)
        if full.found(said.objects) != index:
            continue
        beside = [relation for _, relation in _beside(said, index)]
        for relation in dict.fromkeys(beside):
            if beside.count(relation) == 1:
                yield TextQuestion(said, PictureQuestion("relation", full, relation))
    if len(said.objects) == 2 and (start := next(names_of(said.objects, 1), None)) is not None:
        yield TextQuestion(said, start=start)
