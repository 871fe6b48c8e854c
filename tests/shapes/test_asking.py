"""Prompts of all tasks: what users write means what they meant, or the error says what to write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zoo.errors import ExitCode, InvalidInput
from zoo.runtime.noise import BatchNoise
from zoo.shapes.asking import check_prompt, instruction_of, question_of, text_question_of
from zoo.shapes.examples import drawn_examples

TASKS = {"text-to-image": 1.0, "image-editing": 1.0, "image-to-text": 1.0, "text-to-text": 1.0}


def test_every_sentence_of_the_grammars_means_itself() -> None:
    for example in drawn_examples(BatchNoise("asking"), 3000, TASKS):
        assert check_prompt(example.prompt, (example.task,)) == example.prompt


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Make the red circle blue!", "make the red circle blue"),
        ("please paint the circle red", "make the circle red"),
        ("change the colour of the big red circle to blue", "make the large red circle blue"),
        ("make the cross bigger", "make the cross large"),
        ("shrink the red ring", "make the red ring small"),
        ("change the size of the cross to small", "make the cross small"),
        ("make the square a triangle", "turn the square into a triangle"),
        ("turn square into circle", "turn the square into a circle"),
        ("Move the red circle to the top-left corner", "move the red circle to the top left"),
        ("put the ring in the middle", "move the ring to the centre"),
        ("move the ring to the left side", "move the ring to the left"),
        ("delete the little ring", "remove the small ring"),
        ("take the ring away", "remove the ring"),
        ("change the background to black", "make the background black"),
        ("set the background color to grey", "make the background gray"),
        ("put it on a black background", "make the background black"),
        ("", ""),
    ],
)
def test_instructions_written_with_less_care(text: str, meant: str) -> None:
    assert instruction_of(text) == meant
    assert instruction_of(meant) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Describe the image.", "describe the picture"),
        ("what is in the picture?", "describe the picture"),
        ("What do you see?", "describe the picture"),
        ("What color is the circle?", "what colour is the circle"),
        ("which colour does the background have?", "what colour is the background"),
        ("How many shapes are there?", "how many objects are there"),
        ("how big is the red circle", "what size is the red circle"),
        ("Where is the ring in the picture?", "where is the ring"),
        ("what's at the top left", "what shape is at the top left"),
        ("What shape is in the middle?", "what shape is in the centre"),
        ("what object is to the left of the blue square", "what is left of the blue square"),
        ("What is under the ring?", "what is below the ring"),
        ("  ", ""),
    ],
)
def test_questions_written_with_less_care(text: str, meant: str) -> None:
    assert question_of(text) == meant
    assert question_of(meant) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (
            "A big red circle to the left of a blue square. What color is the square?",
            "a large red circle left of a blue square. what colour is the square",
        ),
        (
            "red circle over blue ring, how many shapes are there",
            "a red circle above a blue ring. how many objects are there",
        ),
        (
            "Say this from the ring: a red circle, on top of a blue ring",
            "say it from the ring: a red circle above a blue ring",
        ),
        ("", ""),
    ],
)
def test_texts_written_with_less_care(text: str, meant: str) -> None:
    assert text_question_of(text) == meant
    assert text_question_of(meant) == meant


@pytest.mark.parametrize(
    ("task", "text", "message", "hint"),
    [
        ("image-editing", "make the dog blue", "does not know the word 'dog'", "It knows: a, above,"),
        ("image-editing", "make the circel blue", "does not know the word 'circel'", "Did you mean: circle?"),
        (
            "image-editing",
            "make the circle",
            "instruction 'make the circle' is not understood",
            "Such as 'make",
        ),
        ("image-editing", "a red circle", "instruction 'a red circle' is not understood", "Such as 'make"),
        (
            "image-to-text",
            "is it red",
            "question 'is it red' is not understood",
            "Such as 'describe the picture'",
        ),
        ("image-to-text", "why", "does not know the word 'why'", "what colour is the background"),
        ("text-to-text", "hello", "text 'hello' is no caption with a question", "say it from"),
        ("text-to-text", "a red circle. where is the red circle", "has no answer", "Such as 'a red circle"),
        ("text-to-text", "a red dog. what colour is the dog", "does not know the word 'dog'", "such as"),
        ("text-to-image", "a red dog", "does not know the word 'dog'", "such as"),
    ],
)
def test_errors_say_what_to_write(task: str, text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_prompt(text, (task,))
    assert message in str(caught.value) and hint in str(caught.value.hint)
    assert caught.value.exit_code == ExitCode.USAGE


def test_each_task_has_its_own_grammar() -> None:
    assert check_prompt("A red disc", ("text-to-image",)) == "a red circle"
    assert check_prompt("A red disc", ("unconditional", "text-to-layers")) == "a red circle"
    assert check_prompt("anything at all", ("reconstruction",)) == "anything at all"
    assert check_prompt("anything at all", ()) == "anything at all"
    assert check_prompt("where's the ring", ("image-to-text",)) == "where is the ring"


def test_reading_prompts_needs_no_torch() -> None:
    code = (
        "import sys; from zoo.shapes.asking import check_prompt; "
        "check_prompt('remove the ring', ('image-editing',)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
