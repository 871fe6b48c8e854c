"""Prompt files: what a line may be, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.errors import InvalidInput
from zoo.io.prompt_files import Line, Mistake, mistakes_error, parse_prompts, read_prompt_file


def parsed(text, objects=False):
    data = text if isinstance(text, bytes) else text.encode()
    return parse_prompts(data, "p.txt", objects)


def test_a_text_file_holds_a_prompt_in_each_line():
    file = parsed("a red circle\r\n\n  # a remark\n  un café\u2028noir  \n")
    assert file.lines == (Line(1, "a red circle"), Line(4, "un café\u2028noir"))
    assert file.mistakes == () and file.name == "p.txt"


def test_a_byte_order_mark_is_no_part_of_the_first_prompt():
    assert parsed(b"\xef\xbb\xbf# remark\na ring").lines == (Line(2, "a ring"),)


def test_a_line_that_begins_with_a_brace_is_an_object():
    file = parsed(
        'a ring\n{"prompt": " a cross ", "seed": 7, "num": 2, "size": "48x32", "steps": 3, "guidance": 1, '
        '"negative": "", "sampler": "toy", "options": {"grain": 0.5}}\n{"class": 4, "size": 16, "seed": null}'
    )
    assert file.mistakes == ()
    assert file.lines[1] == Line(
        2,
        "a cross",
        seed=7,
        num=2,
        size=(32, 48),
        steps=3,
        guidance=1,
        negative="",
        sampler="toy",
        options={"grain": 0.5},
    )
    assert file.lines[2] == Line(3, class_=4, size=(16, 16))


def test_a_jsonl_file_holds_objects_only(tmp_path):
    path = tmp_path / "P.JSONL"
    path.write_text('{"prompt": "a"}\n\n"b"\n')
    file = read_prompt_file(path)
    assert file.lines == (Line(1, "a"),)
    assert [(m.number, m.text) for m in file.mistakes] == [(3, 'expected a JSON object, got "b"')]


def test_part_prompts_go_with_a_prompt_or_stand_alone():
    file = parsed('{"prompt": "a ring", "part_prompts": ["sky", ""]}\n{"part_prompts": ["sky"], "seed": 2}')
    assert file.mistakes == ()
    assert file.lines == (
        Line(1, "a ring", part_prompts=("sky", "")),
        Line(2, part_prompts=("sky",), seed=2),
    )


def test_pictures_go_with_a_prompt_or_stand_alone(tmp_path):
    text = '{"image": " a.png"}\n{"prompt": "a ring", "image": {"image": "a.png", "b": "/b.png"}, "seed": 2}'
    file = parsed(text)
    assert file.mistakes == () and file.folder == Path()
    assert file.lines == (
        Line(1, images={"image": " a.png"}),
        Line(2, "a ring", images={"image": "a.png", "b": "/b.png"}, seed=2),
    )
    (tmp_path / "p.txt").write_text(text)
    assert read_prompt_file(tmp_path / "p.txt").folder == tmp_path


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ('{"promt": "a"}', "unknown key 'promt'", "Did you mean: prompt"),
        ('{"prompt": "a", "zzzz": 1}', "unknown key 'zzzz'", "Keys: prompt, class, negative, seed"),
        ('{"prompt": "a", "class": 1}', "expected prompt or class, got both", ""),
        ('{"seed": 1}', "expected prompt or class, got neither", ""),
        ('{"part_prompts": []}', "expected prompt or class, got neither", ""),
        ('{"prompt": "a", "part_prompts": "b"}', 'part_prompts is "b", expected a list of texts', ""),
        ('{"prompt": "a", "part_prompts": ["b", null]}', "expected a list of texts, such as", ""),
        ('{"image": null}', "expected prompt or class, got neither", ""),
        ('{"image": ""}', 'image is "", expected a path, or an object of paths by role', ""),
        ('{"image": ["a.png"]}', 'image is ["a.png"], expected a path', ""),
        ('{"image": {}}', "image is {}, expected a path", ""),
        ('{"image": {"image": 1}}', 'image is {"image": 1}, expected a path', ""),
        ('{"image": {"": "a.png"}}', "expected a path, or an object of paths by role", ""),
        ('{"prompt": null}', "expected prompt or class, got neither", ""),
        ('{"prompt": "a", "prompt": "b"}', "key 'prompt' stands there twice", ""),
        ('{"prompt": "a", "options": {"b": 1, "b": 2}}', "key 'b' stands there twice", ""),
        ('{"prompt": "a"', "this is not JSON: expecting ',' delimiter at column 15", "plain prompt"),
        ('{"prompt": "a"} {}', "this is not JSON: extra data at column 17", ""),
        ('{"prompt": "  "}', 'prompt is "  ", expected a text', ""),
        ('{"prompt": ["a"]}', 'prompt is ["a"], expected a text', ""),
        ('{"class": true}', "class is true, expected a name or a number", ""),
        ('{"class": 1.5}', "class is 1.5, expected a name or a number", ""),
        ('{"prompt": "a", "seed": -1}', "seed is -1, expected a whole number of at least 0", ""),
        ('{"prompt": "a", "seed": 9223372036854775808}', "expected a whole number of at least 0", ""),
        ('{"prompt": "a", "seed": "7"}', 'seed is "7", expected a whole number', ""),
        ('{"prompt": "a", "num": 0}', "num is 0, expected a whole number of at least 1", ""),
        ('{"prompt": "a", "num": true}', "num is true, expected a whole number", ""),
        ('{"prompt": "a", "steps": 2.0}', "steps is 2.0, expected a whole number", ""),
        ('{"prompt": "a", "size": [8, 8]}', "size is [8, 8], expected WIDTHxHEIGHT or one number", ""),
        ('{"prompt": "a", "size": "0x8"}', 'size is "0x8", expected WIDTHxHEIGHT', ""),
        ('{"prompt": "a", "guidance": -0.5}', "guidance is -0.5, expected a number of at least 0", ""),
        ('{"prompt": "a", "guidance": 1e999}', "guidance is Infinity, expected a number", ""),
        ('{"prompt": "a", "guidance": NaN}', "NaN is not a number that JSON has", ""),
        ('{"prompt": "a", "guidance": 1' + "0" * 400 + "}", "expected a number of at least 0", ""),
        ('{"prompt": "a", "seed": 1' + "0" * 5000 + "}", "holds a number that is too long", ""),
        ('{"prompt": "a", "options": ' + "[" * 100_000 + "}", "", ""),
        ('{"prompt": "a", "negative": 1}', "negative is 1, expected a text", ""),
        ('{"prompt": "a", "sampler": ""}', 'sampler is "", expected a sampler\'s name', ""),
        ('{"prompt": "a", "options": ["b"]}', 'options is ["b"], expected an object', ""),
        (b"caf\xe9", "this is not UTF-8", "Save the file as UTF-8."),
    ],
)
def test_what_is_wrong_with_a_line(line, text, hint):
    data = line if isinstance(line, bytes) else line.encode()
    file = parse_prompts(b"a ring\n" + data + b"\na cross", "p.txt")
    assert file.lines == (Line(1, "a ring"), Line(3, "a cross"))
    (mistake,) = file.mistakes
    assert mistake.number == 2 and text in mistake.text and hint in mistake.hint
    assert len(mistake.text) < 200


def test_a_file_in_another_encoding_is_told_as_a_whole():
    with pytest.raises(InvalidInput, match=r"p\.txt is in UTF-16, expected UTF-8"):
        parsed("a ring".encode("utf-16"))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidInput, match="absent: no such file"):
        read_prompt_file(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="is a folder, expected a text or JSONL file"):
        read_prompt_file(tmp_path)


def test_one_mistake_keeps_its_hint():
    error = mistakes_error("p.txt", [Mistake(3, "what", "Do this.")])
    assert (error.message, error.hint) == ("p.txt, line 3: what", "Do this.")


def test_many_mistakes_are_told_in_the_order_of_the_file():
    numbers = [9, 2, 3, 4, 5, 11, 12, 13, 20, 6]
    mistakes = [Mistake(number, f"wrong {number}", "Do this." if number < 4 else "") for number in numbers]
    message = mistakes_error("p.txt", mistakes).message
    assert message.splitlines() == [
        "p.txt has 10 mistakes",
        "line 2: wrong 2. Do this.",
        "line 3: wrong 3",
        "line 4: wrong 4",
        "line 5: wrong 5",
        "line 6: wrong 6",
        "and 5 more, in lines 9, 11-13, 20",
    ]
