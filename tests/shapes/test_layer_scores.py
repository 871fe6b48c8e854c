"""What an evaluation of layers comes to, from samples whose marks are known."""

from __future__ import annotations

import json

import pytest

from zoo.shapes import HELD_OUT
from zoo.shapes.layer_evaluation import Ablation, LayerEvaluation, chosen_for_ablations
from zoo.shapes.layer_exam import LayeredAnswer, LayerMark, LayerQuestion, layer_questions
from zoo.shapes.layer_scores import layered_score, scores_by_layers
from zoo.shapes.scores import Share

RED, BLUE = "a red circle", "a blue square"


def answer(*marks: tuple[bool, float | None], held_out=False, agrees=True, background=True, surplus=0):
    """An answer with a layer for each mark: whether it is right, and the overlap of its mask."""
    parts = (RED, BLUE, RED)[: len(marks)]
    question = LayerQuestion(
        f"{' above '.join(parts)} on a white background",
        ("a white background", *parts),
        ("red circle", "blue square", "red circle")[: len(marks)],
        held_out,
        "white",
        ("above",) * (len(marks) - 1),
    )
    layers = tuple(
        LayerMark(part, correct, f"scene of {part}", iou)
        for part, (correct, iou) in zip(parts, marks, strict=True)
    )
    return LayeredAnswer(question, 100, agrees, "composite", background, layers, surplus)


ANSWERS = (
    answer((True, 1.0)),
    answer((True, 0.85), background=False),
    answer((False, 0.84), held_out=True, agrees=False),
    answer((True, 0.95), surplus=1),
    answer((True, 0.9), (True, 0.7)),
    answer((True, 0.8), (False, 0.0), held_out=True),
)


def evaluation(answers=ANSWERS, ablations=(), options=None, changed=None) -> LayerEvaluation:
    return LayerEvaluation(
        reference="toy:shapes",
        weights="somewhere",
        sampler="layers",
        options=options or {},
        changed=changed or {},
        device="cpu",
        dtype="float32",
        seed=100,
        seconds_per_sample=0.5,
        answers=tuple(answers),
        ablations=tuple(ablations),
    )


def test_a_sample_is_exact_if_all_its_layers_are():
    score = layered_score(ANSWERS)
    assert score.exact.all == Share(3, 6), "a layer too many makes a sample wrong, though not its layers"
    assert (score.exact.seen, score.exact.held_out) == (Share(3, 4), Share(0, 2))
    assert score.layers == Share(6, 8)
    assert score.backgrounds == Share(5, 6)
    assert (score.composites.all, score.composites.seen) == (Share(5, 6), Share(4, 4))


def test_masks():
    masks = layered_score(ANSWERS).masks
    assert masks.mean == pytest.approx((1.0 + 0.85 + 0.84 + 0.95 + 0.9 + 0.7 + 0.8 + 0.0) / 8)
    assert masks.fitting == Share(4, 8), "0.85 fits"
    assert layered_score([answer((True, None)), answer((True, None))]).masks is None
    # A layer that is missing is known to fit nothing; that alone says nothing of the others.
    assert layered_score([answer((True, None), (False, 0.0))]).masks is None


def test_numbers_of_layers_stand_apart():
    scores = scores_by_layers(ANSWERS)
    assert list(scores) == [2, 3]
    assert (scores[2].exact.all, scores[2].layers) == (Share(2, 4), Share(3, 4))
    assert (scores[3].exact.all, scores[3].layers) == (Share(1, 2), Share(3, 4))
    assert scores[3].masks.mean == pytest.approx((0.9 + 0.7 + 0.8 + 0.0) / 4)
    assert scores[3].composites.all == Share(2, 2)


def test_failures_are_samples_with_anything_wrong():
    assert evaluation().failures == (*ANSWERS[1:4], ANSWERS[5])


def test_the_document():
    ablations = [Ablation(None, None, ANSWERS[:2]), Ablation("inter_layer", False, ANSWERS[2:3])]
    document = evaluation(ablations=ablations, options={"steps": 20}).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["all"]["samples"] == 6 and list(document["by_layers"]) == ["2", "3"]
    three = document["by_layers"]["3"]
    assert three["all_layers"] == {
        "correct": 1,
        "total": 2,
        "accuracy": 0.5,
        "seen": {"correct": 1, "total": 1, "accuracy": 1.0},
        "held_out": {"correct": 0, "total": 1, "accuracy": 0.0},
    }
    assert three["masks"] == {
        "mean_iou": pytest.approx(0.6),
        "fits_from": 0.85,
        "fitting": {"correct": 1, "total": 4, "accuracy": 0.25},
    }
    assert [entry["changed"] for entry in document["ablations"]] == [{}, {"inter_layer": False}]
    assert document["ablations"][1]["by_layers"]["2"]["masks"]["mean_iou"] == 0.84
    assert document["samples"][5] == {
        "prompt": f"{RED} above {BLUE} on a white background",
        "part_prompts": ["a white background", RED, BLUE],
        "held_out": True,
        "seed": 100,
        "all_layers": False,
        "composite": True,
        "shows": "composite",
        "background": True,
        "layers": [
            {"correct": True, "shows": f"scene of {RED}", "mask_iou": 0.8},
            {"correct": False, "shows": f"scene of {BLUE}", "mask_iou": 0.0},
        ],
        "surplus_layers": 0,
    }
    assert "pictures" not in document and "answers" not in document


def test_what_is_always_stated():
    options = {"grain": 1, "solver": "dpm++", "mask_guidance": 1.5, "guidance": 2.0, "steps": 20}
    stated = evaluation(options=options, changed={"guidance": 2.0}).stated
    assert stated == {"steps": 20, "guidance": 2.0, "mask_guidance": 1.5, "solver": "dpm++"}


def test_ablations_by_name():
    assert [Ablation(name, value, ()).name for name, value in ((None, None), ("inter_layer", False))] == [
        "as it is",
        "inter_layer=false",
    ]


def test_ablations_share_an_even_choice_of_questions():
    questions = [question for objects in (1, 2, 3) for question in layer_questions(objects, 80, 0, HELD_OUT)]
    chosen = chosen_for_ablations(questions, 40)
    assert len(set(chosen)) == 120 and chosen == sorted(chosen)
    for first in (0, 40, 80):
        part = [questions[index] for index in chosen[first : first + 40]]
        assert len({question.layers for question in part}) == 1
        assert sum(question.held_out for question in part) == 10
    assert chosen_for_ablations(questions, 1000) == list(range(240))
    assert chosen_for_ablations(questions, 0) == []
