"""How often the judge of the shapes world is right: on ground truth, and on captions with one wrong word.

A picture counts as read when background and every object's shape, colour, size and cell are right. A wrong
caption is the true one with one word exchanged for another of its kind.

    python benchmarks/judge.py --side 32 --scenes 5000
"""

from __future__ import annotations

import argparse
import json
import random
import re

import torch

from zoo.shapes import Scene, agrees, caption, judge, render, sample_scene
from zoo.shapes.captions import matches, parse
from zoo.shapes.judging import Unjudgeable
from zoo.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES

KINDS = (tuple(COLOURS), SHAPES, tuple(SIZES), tuple(BACKGROUNDS))


def contents(scene: Scene) -> tuple[str, frozenset[tuple[object, ...]]]:
    """What has to be right, whatever the order of depth."""
    items = ((item.shape, item.colour, item.size, item.cell) for item in scene.items)
    return scene.background, frozenset(items)


def read_rightly(scene: Scene, side: int) -> bool:
    """Whether the judge reads the scene back from its picture."""
    try:
        return contents(judge(render(scene, side))) == contents(scene)
    except Unjudgeable:
        return False


def wrong_caption(scene: Scene, rng: random.Random) -> str:
    """The scene's caption with one word exchanged, so that it is no longer true."""
    words = caption(scene).split()
    while True:
        index = rng.randrange(len(words))
        kind = next((kind for kind in KINDS if words[index] in kind), None)
        if kind is None:
            continue
        changed = [*words[:index], rng.choice(kind), *words[index + 1 :]]
        text = re.sub(r"\ban? (?=\w)", "a ", " ".join(changed)).replace("a orange", "an orange")
        if not matches(parse(text), scene):
            return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=32, help="side of the pictures, pixels")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--captions", type=int, default=200, help="wrong captions to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seed, options.seed + options.scenes)
    missed = [seed for seed in seeds if not read_rightly(sample_scene(seed), options.side)]
    rng = random.Random(options.seed)
    chosen = [sample_scene(seed) for seed in seeds[: options.captions]]
    believed = sum(agrees(render(scene, options.side), wrong_caption(scene, rng)) for scene in chosen)
    figures = {
        "side": options.side,
        "scenes": options.scenes,
        "accuracy": 1 - len(missed) / options.scenes,
        "missed_seeds": missed,
        "wrong_captions": len(chosen),
        "wrong_captions_believed": believed,
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:24s} {value}")


if __name__ == "__main__":
    main()
