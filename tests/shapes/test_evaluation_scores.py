"""What an evaluation comes to, from samples whose marks are known."""

from __future__ import annotations

import json

import pytest

from zoo.shapes.evaluation import Evaluation
from zoo.shapes.exam import Answer, Question
from zoo.shapes.scores import Share

RED, BLUE, RING = "red circle", "blue square", "orange ring"

#: Prompt, combinations, whether one is held out (the ring is), relation, whether the sample is right.
SAMPLES = [
    ("a red circle", (RED,), False, None, True),
    ("a red circle", (RED,), False, None, False),
    ("an orange ring", (RING,), True, None, True),
    ("an orange ring", (RING,), True, None, False),
    ("a blue square", (BLUE,), False, None, True),
    ("a blue square", (BLUE,), False, None, True),
    ("a red circle left of a blue square", (RED, BLUE), False, "left of", True),
    ("a blue square below a red circle", (BLUE, RED), False, "below", False),
    ("a red circle below a blue square", (RED, BLUE), False, "below", True),
    ("an orange ring above a red circle", (RING, RED), True, "above", False),
]


def evaluation(samples=SAMPLES, options=None, changed=None) -> Evaluation:
    answers = tuple(
        Answer(Question(prompt, names, held_out, relation), 100 + index, correct, f"scene {index}")
        for index, (prompt, names, held_out, relation, correct) in enumerate(samples)
    )
    return Evaluation(
        reference="toy:shapes",
        weights="somewhere",
        sampler="dpm++",
        options=options or {},
        changed=changed or {},
        device="cpu",
        dtype="float32",
        seed=100,
        per_class=2,
        answers=answers,
        seconds_per_sample=0.5,
        bits_per_dim=None,
        renders=0,
    )


def test_groups():
    document = evaluation().to_dict()
    assert document["single_objects"] == {
        "correct": 4,
        "total": 6,
        "accuracy": 4 / 6,
        "seen": {"correct": 3, "total": 4, "accuracy": 0.75},
        "held_out": {"correct": 1, "total": 2, "accuracy": 0.5},
    }
    assert document["two_objects"] == {
        "correct": 2,
        "total": 4,
        "accuracy": 0.5,
        "seen": {"correct": 2, "total": 3, "accuracy": 2 / 3},
        "held_out": {"correct": 0, "total": 1, "accuracy": 0.0},
    }
    assert (document["accuracy"], document["seen"], document["held_out"]) == (0.6, 5 / 7, 1 / 3)


def test_a_pair_counts_for_both_of_its_combinations():
    red, ring, blue = evaluation().classes
    assert [score.name for score in (red, ring, blue)] == [RED, RING, BLUE]
    assert (red.correct, red.total, red.accuracy, red.in_pairs) == (1, 2, 0.5, Share(2, 4))
    assert (ring.correct, ring.total, ring.held_out, ring.in_pairs) == (1, 2, True, Share(0, 1))
    assert (blue.correct, blue.total, blue.held_out, blue.in_pairs) == (2, 2, False, Share(2, 3))
    assert [score.overall for score in (red, ring, blue)] == [3 / 6, 1 / 3, 4 / 5]
    assert evaluation().to_dict()["classes"][1] == {
        "name": RING,
        "prompt": "an orange ring",
        "held_out": True,
        "correct": 1,
        "total": 2,
        "accuracy": 0.5,
        "in_pairs": {"correct": 0, "total": 1, "accuracy": 0.0},
    }


def test_relations_are_in_the_order_of_the_grammar():
    relations = evaluation().relations
    assert list(relations.items()) == [
        ("left of", Share(1, 1)),
        ("above", Share(0, 1)),
        ("below", Share(1, 2)),
    ]


def test_every_pair_and_every_failure_is_listed():
    document = evaluation().to_dict()
    assert [entry["seed"] for entry in document["pairs"]] == [106, 107, 108, 109]
    assert document["pairs"][3] == {
        "prompt": "an orange ring above a red circle",
        "seed": 109,
        "shows": "scene 9",
        "relation": "above",
        "held_out": True,
        "correct": False,
    }
    assert [(entry["prompt"], entry["seed"], entry["shows"]) for entry in document["failures"]] == [
        ("a red circle", 101, "scene 1"),
        ("an orange ring", 103, "scene 3"),
        ("a blue square below a red circle", 107, "scene 7"),
        ("an orange ring above a red circle", 109, "scene 9"),
    ]


def test_single_objects_alone():
    alone = evaluation(SAMPLES[:2])
    document = alone.to_dict()
    assert (document["two_objects"], document["relations"], document["pairs"]) == (None, {}, [])
    assert (document["accuracy"], document["seen"], document["held_out"]) == (0.5, 0.5, None)
    assert alone.classes[0].in_pairs is None and alone.classes[0].overall == 0.5
    assert document["single_objects"]["held_out"] == {"correct": 0, "total": 0, "accuracy": None}


def test_the_document_is_json():
    document = evaluation(options={"steps": 20}).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert "images" not in document and "answers" not in document


@pytest.mark.parametrize(
    ("options", "changed", "stated"),
    [
        ({"grain": 1, "guidance": 2.0, "steps": 20}, {}, {"steps": 20, "guidance": 2.0}),
        ({"steps": 9, "eta": 1.0}, {"eta": 1.0, "steps": 9}, {"steps": 9, "eta": 1.0}),
        ({"level": 0.5}, {}, {}),
    ],
)
def test_steps_and_guidance_are_always_stated(options, changed, stated):
    result = evaluation(options=options, changed=changed).stated
    assert list(result.items()) == list(stated.items())
