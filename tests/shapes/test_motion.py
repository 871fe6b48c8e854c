"""Moving scenes: straight lines, inside the picture, the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from zoo.shapes import (
    Item,
    Scene,
    at_time,
    examine,
    frames,
    masks,
    render,
    sample_scene,
    sample_velocities,
)


def test_frames_start_with_the_scene_and_move_by_whole_pixels() -> None:
    scene = Scene("white", (Item("circle", "red", "small"),))
    video = frames(scene, [(2 / 32, -1 / 32)], 4, 32)
    assert video.shape == (4, 3, 32, 32)
    assert torch.equal(video[0], render(scene, 32))
    for time in range(4):
        shifted = torch.roll(video[0], (-time, 2 * time), (1, 2))
        assert torch.allclose(video[time], shifted, atol=1e-5)


def test_still_objects_stay_while_others_move() -> None:
    still, moving = Item("ring", "blue", "small", (0, 0)), Item("cross", "red", "small", (2, 0))
    scene = Scene("black", (still, moving))
    video = frames(scene, [(0.0, 0.0), (0.05, 0.0)], 3, 64)
    assert torch.equal(video[:, :, :24], video[:1, :, :24].expand(3, -1, -1, -1))
    assert (video[1:] != video[:-1]).flatten(1).any(1).all()


def test_sampled_velocities_keep_objects_inside() -> None:
    for seed in range(300):
        scene = sample_scene(seed)
        velocities = sample_velocities(scene, seed, count=16)
        assert velocities == sample_velocities(scene, seed, count=16)
        last = at_time(scene, velocities, 15)
        for before, after in zip(scene.items, last.items, strict=True):
            for start, end in zip(before.centre, after.centre, strict=True):
                slack = max(before.radius - min(start, 1 - start), 0.0)
                assert before.radius - slack - 1e-9 <= end <= 1 - before.radius + slack + 1e-9
        assert all(abs(part) <= 0.05 for velocity in velocities for part in velocity)


def test_sampled_velocities_move_and_differ_between_seeds() -> None:
    scene = sample_scene(0)
    drawn = {sample_velocities(scene, seed, count=8) for seed in range(50)}
    assert len(drawn) == 50
    assert max(abs(part) for velocities in drawn for velocity in velocities for part in velocity) > 0.01


def test_whole_objects_stay_visible_to_the_last_frame() -> None:
    scene = sample_scene(5, objects=(1,))
    last = at_time(scene, sample_velocities(scene, 3, count=8), 7)
    area = masks(last.items, 64).sum()
    assert area == pytest.approx(float(masks(scene.items, 64).sum()), rel=0.02)
    assert (last.items[0].shape, last.items[0].colour) == (
        examine(render(last, 64)).scene.items[0].shape,
        scene.items[0].colour,
    )


def test_errors_name_what_is_wrong() -> None:
    scene = sample_scene(1, objects=(2,))
    with pytest.raises(ValueError, match="2 objects need as many velocities, got 1"):
        frames(scene, [(0.0, 0.0)], 2, 32)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        frames(scene, [(0.0, 0.0)] * 2, 0, 32)
