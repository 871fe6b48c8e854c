"""Layered images in memory: compositing, editing and showing them, and the table of kinds."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from layer_cases import layered, noise

from zoo.errors import InvalidInput, PluginError, ZooError
from zoo.io.artifacts import Artifact, Image
from zoo.io.grid import ImageGrid, grid
from zoo.io.kinds import artifact_class, check_extra, chosen_format
from zoo.io.layers import Layer, LayeredImage

WHITE = [255, 255, 255]


def flat(colour, alpha=1.0, height=2, width=3, **fields):
    """A layer of one colour."""
    pixels = torch.tensor([*colour, alpha])[:, None, None].expand(4, height, width).clone()
    return Layer(pixels, **fields)


def pixel(image, x, y):
    return image.to_bytes8()[y, x].tolist()


def test_it_is_an_artifact_like_any_other(provenance):
    image = layered(provenance)
    assert isinstance(image, Artifact)
    assert image.kind == "layers"
    assert image.composite().provenance == provenance
    assert image.picture().provenance == provenance
    assert LayeredImage.formats == {"ora": (".ora",), "folder": ("",), "psd": (".psd",)}


def test_a_picture_shows_itself():
    image = Image(torch.zeros(3, 2, 2))
    assert image.picture() is image
    assert grid([image]).picture().images == (image,)
    assert (
        Image.formats
        == ImageGrid.formats
        == {
            "png": (".png",),
            "webp": (".webp",),
            "jpeg": (".jpg", ".jpeg"),
        }
    )


# Compositing


def test_where_nothing_covers_the_composite_is_white():
    image = LayeredImage((4, 5), (flat((1.0, 0.0, 0.0), x=2, y=1),))
    composite = image.composite()
    assert composite.pixels.shape == (3, 4, 5)
    assert pixel(composite, 1, 1) == pixel(composite, 2, 0) == pixel(composite, 2, 3) == WHITE
    assert pixel(composite, 2, 1) == pixel(composite, 4, 2) == [255, 0, 0]


def test_layers_are_blended_back_to_front_with_straight_alpha():
    image = LayeredImage((2, 3), (flat((0.0, 0.0, 1.0)), flat((1.0, 0.0, 0.0), alpha=0.4)))
    assert pixel(image.composite(), 0, 0) == [102, 0, 153]
    assert pixel(replace(image, layers=image.layers[::-1]).composite(), 0, 0) == [0, 0, 255]


def test_opacity_multiplies_alpha():
    faded = LayeredImage((2, 3), (flat((0.0, 0.0, 0.0), alpha=0.4, opacity=0.5),))
    assert pixel(faded.composite(), 0, 0) == [204, 204, 204]


def test_hidden_layers_are_left_out():
    image = LayeredImage((2, 3), (flat((0.0, 1.0, 0.0)), flat((1.0, 0.0, 0.0), visible=False)))
    assert pixel(image.composite(), 0, 0) == [0, 255, 0]
    assert pixel(image.with_layer(0, visible=False).composite(), 0, 0) == WHITE


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 2), (-3, 0), (0, -2), (10**12, 0)])
def test_a_layer_beside_the_canvas_changes_nothing(x, y):
    image = LayeredImage((2, 3), (flat((0.0, 0.0, 1.0)), flat((1.0, 0.0, 0.0), x=x, y=y)))
    assert torch.equal(image.composite().pixels, replace(image, layers=image.layers[:1]).composite().pixels)


def test_a_layer_over_the_edge_shows_the_part_that_is_inside():
    values = noise(4, 3, 4)
    values[3] = 1.0
    composite = LayeredImage((4, 5), (Layer(values, x=-1, y=2),)).composite()
    assert torch.equal(composite.to_bytes8()[2:, :3], Image(values[:3, :2, 1:]).to_bytes8())


def test_the_composite_is_that_of_the_8_bit_values():
    exact = torch.full((4, 1, 1), 0.3)
    written = exact.mul(255).add(0.5).floor().div(255)
    assert not torch.equal(exact, written)
    first, second = (LayeredImage((1, 1), (Layer(pixels),)).composite() for pixels in (exact, written))
    assert torch.equal(first.pixels, second.pixels)


def test_values_outside_the_range_are_clamped():
    image = LayeredImage((2, 3), (flat((1.5, -0.5, 0.0), alpha=7.0),))
    assert pixel(image.composite(), 0, 0) == [255, 0, 0]


def test_values_that_are_not_finite_are_refused():
    layer = flat((0.0, 0.0, float("nan")), name="a red circle")
    with pytest.raises(ZooError, match="layer 'a red circle' has 6 of 24 values that are not finite"):
        LayeredImage((2, 3), (layer,)).composite()


# Showing


def test_the_picture_is_the_composite_and_every_layer_in_a_row():
    image = layered()
    height, width = image.size
    sheet = image.picture().to_bytes8()
    assert sheet.shape == (height, 5 * width + 4 * 2, 3)
    assert torch.equal(sheet[:, :width], image.composite().to_bytes8())
    assert bool((sheet[:, width : width + 2] == 255).all())
    cells = [sheet[:, start : start + width] for start in range(0, sheet.shape[1], width + 2)]
    assert torch.equal(cells[1], Image(image.layers[0].pixels[:3].contiguous()).to_bytes8())


def test_hidden_and_faded_layers_are_shown_in_full():
    layers = (flat((0.0, 0.0, 1.0)), flat((1.0, 0.0, 0.0), visible=False, opacity=0.2))
    sheet = LayeredImage((2, 3), layers).picture()
    assert pixel(sheet, 0, 0) == [0, 0, 255]
    assert pixel(sheet, 2 * (3 + 2), 0) == [255, 0, 0]


@pytest.mark.parametrize(("size", "side"), [((16, 20), 4), ((128, 100), 4), ((256, 256), 8)])
def test_transparent_parts_show_light_squares_that_grow_with_the_picture(size, side):
    width = size[1]
    empty = LayeredImage(size, (flat((0.0, 0.0, 0.0), alpha=0.0),))
    cell = empty.picture().to_bytes8()[:, width + 2 :, 0]
    grey = int(cell[0, side])
    assert 200 < grey < 240
    assert cell[0, :side].tolist() == [255] * side and cell[side, :side].tolist() == [grey] * side
    assert set(cell[:side, side : 2 * side].flatten().tolist()) == {grey}
    assert int(cell[0, 2 * side]) == int(cell[side, side]) == 255


# Editing


def test_with_layer_keeps_every_other_layer(provenance):
    image = layered(provenance)
    changed = image.with_layer(1, opacity=0.25, visible=False)
    assert (changed.layers[1].opacity, changed.layers[1].visible) == (0.25, False)
    assert changed.layers[1].pixels is image.layers[1].pixels
    assert [changed.layers[i] is image.layers[i] for i in range(4)] == [True, False, True, True]
    assert changed.provenance == provenance and image.layers[1].opacity == 1.0


def test_new_pixels_drop_the_file_and_what_was_drawn():
    file = b"\x89PNG\r\n\x1a\n..."
    drawn = torch.zeros(4, 3, 40, 52)
    image = replace(layered().with_layer(1, encoded=file), drawn=drawn)
    assert image.moved(1, 1, 1).layers[1].encoded == file and image.moved(1, 1, 1).drawn is drawn
    painted = image.with_layer(1, pixels=noise(4, 2, 2))
    assert painted.layers[1].encoded is None and painted.drawn is None


def test_moved_adds_to_the_position():
    moved = layered().moved(2, -20, 3)
    assert [(layer.x, layer.y) for layer in moved.layers] == [(0, 0), (-7, 15), (-2, 12), (3, 4)]


@pytest.mark.parametrize("index", [-1, 4])
def test_a_layer_that_is_not_there(index):
    with pytest.raises(InvalidInput, match=f"there is no layer {index}, expected 0 to 3"):
        layered().with_layer(index, visible=False)
    with pytest.raises(InvalidInput, match="no layer"):
        layered().moved(index, 1, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixels": torch.zeros(3, 2, 2)}, "shape"),
        ({"pixels": torch.zeros(4, 0, 2)}, "shape"),
        ({"pixels": torch.zeros(4, 2, 2, dtype=torch.float64)}, "float32"),
        ({"x": 1.0}, "position"),
        ({"y": True}, "position"),
        ({"opacity": 1.01}, "opacity"),
        ({"opacity": float("nan")}, "opacity"),
        ({"encoded": b"GIF89a"}, "PNG"),
    ],
)
def test_a_layer_checks_its_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Layer(**{"pixels": torch.zeros(4, 2, 2), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (0, 3)}, "two positive integers"),
        ({"size": (2, 3, 4)}, "two positive integers"),
        ({"size": (2.0, 3.0)}, "two positive integers"),
        ({"layers": ()}, "at least one layer"),
        ({"drawn": torch.zeros(2, 3, 2, 3)}, r"\[1, 3, h, w\]"),
    ],
)
def test_a_layered_image_checks_its_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        LayeredImage(**{"size": (2, 3), "layers": (flat((0.0, 0.0, 0.0)),), **fields})


# Kinds


class Text:
    """A kind of a plugin."""

    kind = "text"
    formats: dict = {"txt": (".txt",)}  # noqa: RUF012

    def picture(self):
        return Image(torch.zeros(1, 1, 1))

    def save(self, path, format=None, metadata=True, overwrite=False):
        return path


def test_kinds_name_their_classes():
    assert artifact_class("image") is Image
    assert artifact_class("layers") is LayeredImage
    assert artifact_class(f"{__name__}:Text") is Text


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        ("layer", "'layer' is no kind of artifact"),
        ("", "'' is no kind of artifact"),
        ("zoo.errors:ZooError", "lacks kind, formats, picture, save"),
        ("zoo.io.kinds:KINDS", "is no class"),
        ("zoo.io.artifacts:Nothing", "cannot be loaded"),
        ("no_such_package:Nothing", "cannot be loaded"),
    ],
)
def test_what_is_no_kind(makes, message):
    with pytest.raises(PluginError, match=message) as caught:
        artifact_class(makes)
    if "cannot be loaded" not in message:
        assert "image, layers" in caught.value.hint


def test_a_near_kind_is_suggested():
    with pytest.raises(PluginError) as caught:
        artifact_class("layer")
    assert caught.value.hint.startswith("Did you mean: layers?")


@pytest.mark.parametrize(
    ("path", "format", "expected"),
    [
        ("a.ora", None, "ora"),
        ("a.PSD", None, "psd"),
        ("folder", None, "folder"),
        ("a.ora", "folder", "folder"),
        ("a", "ORA", "ora"),
        ("a", ".psd", "psd"),
    ],
)
def test_the_format_of_a_path(path, format, expected):
    assert chosen_format(LayeredImage.formats, path, format, "layered image") == expected


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(InvalidInput, match=r"unknown layered image format '\.png'") as caught:
        chosen_format(LayeredImage.formats, "a.png", None, "layered image")
    assert caught.value.hint == "Formats: ora, folder, psd."


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("zoo.io.kinds.find_spec", lambda name: None)
    with pytest.raises(PluginError, match="needs the package 'psd-tools'") as caught:
        check_extra(LayeredImage, "psd")
    assert caught.value.hint == 'pip install "zoo[psd]"'
    check_extra(LayeredImage, "ora")
    check_extra(Image, "png")


def test_the_table_of_kinds_is_there_without_torch():
    code = "import sys, zoo.io.kinds; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
