import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch

from zoo.errors import ZooError
from zoo.io.artifacts import Artifact, Image, Provenance


def test_importing_the_package_imports_neither_torch_nor_pillow():
    code = "import sys, zoo.io; sys.exit(bool({'torch', 'PIL'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_provenance_round_trips_through_json(provenance):
    assert Provenance.from_dict(json.loads(json.dumps(provenance.to_dict()))) == provenance


def test_provenance_equals_its_copy_when_an_option_is_a_tuple(provenance):
    made = dataclasses.replace(provenance, options={"sizes": (1, 2)})
    assert made.options == {"sizes": [1, 2]}
    assert Provenance.from_dict(made.to_dict()) == made


def test_provenance_does_not_follow_later_changes_of_the_options(provenance):
    options = {"nested": [1]}
    made = dataclasses.replace(provenance, options=options)
    options["nested"].append(2)
    assert made.options == {"nested": [1]}


def test_from_dict_ignores_unknown_keys(provenance):
    assert Provenance.from_dict({**provenance.to_dict(), "added_later": 1}) == provenance


@pytest.mark.parametrize("key", ["reference", "seed", "sampler", "options", "dtype", "device", "zoo_version"])
def test_from_dict_names_the_missing_key(provenance, key):
    values = provenance.to_dict()
    del values[key]
    with pytest.raises(ValueError, match=f"lacks {key}$"):
        Provenance.from_dict(values)


@pytest.mark.parametrize("key", ["weights", "revision", "prompt", "class_name", "class_id", "size"])
def test_from_dict_does_without_the_optional_keys(provenance, key):
    values = provenance.to_dict()
    del values[key]
    assert getattr(Provenance.from_dict(values), key) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reference", 3),
        ("reference", None),
        ("seed", "7"),
        ("seed", True),
        ("class_id", 1.0),
        ("prompt", ["a"]),
        ("size", [1]),
        ("size", [0, 4]),
        ("size", "ab"),
        ("options", [1]),
        ("options", {"x": object()}),
        ("options", {"x": math.nan}),
        ("options", {1: "x"}),
    ],
)
def test_provenance_refuses_wrong_types(provenance, key, value):
    with pytest.raises(ValueError, match=key.rstrip("s")):
        Provenance.from_dict({**provenance.to_dict(), key: value})


def test_image_and_grid_are_artifacts(picture):
    from zoo.io.grid import grid

    assert isinstance(picture, Artifact)
    assert isinstance(grid([picture]), Artifact)
    assert not isinstance(object(), Artifact)
    assert picture.kind == grid([picture]).kind == "image"


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(4, 4),
        torch.zeros(4, 4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, dtype=torch.float64),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(3, 4, 4, device="meta"),
    ],
)
def test_image_refuses_other_pixels(pixels):
    with pytest.raises(ValueError, match="image pixels: expected"):
        Image(pixels)


def test_all_levels_survive_the_way_to_bytes():
    levels = torch.arange(256).view(1, 16, 16)
    assert Image(levels / 255).to_bytes8().flatten().tolist() == list(range(256))


def test_bytes_are_rounded_half_up_and_clamped():
    values = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 0.5, 1.0, 7.0])
    assert Image(values.view(1, 1, 7)).to_bytes8().flatten().tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_bytes_have_the_channels_last(picture):
    result = picture.to_bytes8()
    assert result.shape == (23, 37, 3) and result.dtype == torch.uint8 and result.is_contiguous()
    assert result[5, 11, 2] == round(float(picture.pixels[2, 5, 11]) * 255)


def test_bytes_of_pixels_with_gradient_leave_them_unchanged():
    pixels = torch.full((1, 2, 2), 0.25, requires_grad=True)
    assert Image(pixels).to_bytes8().unique().tolist() == [64]
    assert pixels.unique().tolist() == [0.25]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bytes_of_pixels_that_are_not_finite_are_refused(value):
    pixels = torch.zeros(3, 2, 2)
    pixels[1, 0, 1] = value
    with pytest.raises(ZooError, match="1 of 12 values that are not finite"):
        Image(pixels).to_bytes8()
