"""How the built-in `illume:shapes-tokenizer` is trained: both branches at once, then the decoder alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.runtime.noise import NoiseSource
from zoo.shapes.batches import drawn_scenes
from zoo.shapes.rendering import colour_table, render_all
from zoo.shapes.scene import BACKGROUNDS, CLASSES, COLOURS, Scene
from zoo.training.recipe import Budget
from zoo_illume.convolutions import Attention, ResidualBlock, SpatialNorm
from zoo_illume.dualvitok import DualViTok
from zoo_illume.pixel import PixelCodes
from zoo_illume.semantic import SemanticCodes
from zoo_illume.shapes_teacher import teacher_features, visible
from zoo_illume.simvq import SimVQ

#: Side of the pictures, and of what a semantic code stands for, pixels.
SIZE, CELL = 32, 8
#: Features of a cell, as many as the vision transformer of the card has.
CHANNELS = 64

#: Pictures by which the first features and codes are brought to one scale.
FIRST_PICTURES = 256
#: Directions in which the first features vary less than this, relative to the strongest, are noise.
LEAST_VARIANCE = 1e-4

#: How much faster codes move than with a codebook of unit length: the step of AdamW is that of the map's
#: weights, and with small ones features would run ahead of their codes.
PACE = 20.0

#: Share of the pictures whose features go on with noise, in each branch, and its standard deviation: features
#: have about unit variance.
BLURRED, NOISE = 0.5, 0.15

#: Weights of the losses beside that of the picture: the transformer's features against the teacher's, and
#: those that come back from the semantic codes against the transformer's.
TEACHING, RETURNING = 0.1, 0.1
#: How far features may go, as their squared length over that of the average code, and the weight of what
#: holds them there. Features that are free to grow outrun the noise on them, and leave all but the outermost
#: codes behind.
REACH, HOLDING = 1.5, 0.3
#: Weight of the picture's loss. Flat pictures are soon nearly right, and what is left is all that counts.
DRAWING = 4.0
#: What counts as seen of an object, and the least area that it is taken for, pixels.
SEEN, LEAST_AREA = 0.02, 4.0

#: Objects of a scene. What there is to learn is where several meet; one alone is soon right.
OBJECTS = (1, 2, 3, 3)

#: How much of their fresh weights residual branches begin with, and of the codes' influence on norms. As
#: modules make them, every norm of the decoder multiplies by random numbers of its own.
BRANCHES, MODULATION = 0.2, 0.3


class ShapesDecoderRecipe:
    """The picture from codes that stay as they are, by the decoder alone, on every combination.

    Codes tell combinations that they were not learnt from. A decoder that never drew one takes it for the
    nearest that it did: a green cross, on gray, for a green diamond.
    """

    seed = 0
    budget = Budget(
        steps=10_000,
        batch_size=32,
        learning_rate=1e-3,
        final_learning_rate=1e-5,
        warmup_steps=200,
        betas=(0.9, 0.99),
        weight_decay=1e-4,
        clip_norm=1.0,
        ema_decay=0.999,
        autocast=None,
    )

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """`size` pictures in [-1, 1], and their `object_weights`."""
        scenes = drawn_scenes(noise, size, OBJECTS, CLASSES)
        return {
            "images": render_all(scenes, SIZE) * 2.0 - 1.0,
            "weights": object_weights(scenes, SIZE),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """That of the picture; nothing is drawn from `noise`."""
        tokenizer = cast(DualViTok, model)
        with torch.no_grad():
            encoded = tokenizer.encode(batch["images"])
        meaning, details = encoded.semantic.quantised.values, encoded.pixel.quantised.values
        return DRAWING * _picture_loss(tokenizer.decode_codes(meaning, details), batch)


class ShapesTokenizerRecipe:
    """The picture from the codes of both branches, and the meaning of its cells.

    Errors of the picture are absolute, squared, and squared relative to its objects: few pixels show a small
    one, and little of a faint one, but each has to be right.

    ILLUME+ keeps a vision transformer that was trained before; this one learns its features here, as
    `zoo_illume.shapes_teacher` has them, while the semantic branch learns to give them back through its
    codes. Both codebooks have the loss of SimVQ (arXiv 2411.02038).

    Codes are learnt without the combinations that recipes of the shapes world leave out.
    """

    seed = 0
    next_stage = ShapesDecoderRecipe()
    budget = Budget(
        steps=25_000,
        batch_size=32,
        learning_rate=1.5e-3,
        final_learning_rate=1e-5,
        warmup_steps=500,
        betas=(0.9, 0.99),
        weight_decay=1e-4,
        clip_norm=1.0,
        ema_decay=0.999,
        autocast=None,
    )

    def initialise(self, model: nn.Module, noise: NoiseSource) -> None:
        """Quiet branches; features without mean, of unit variance and uncorrelated, and codes as they are.

        Fresh codes are all near zero. Features would run away from them to make a difference, and then share
        the few codes that lie farthest out.
        """
        _quieten(model)
        tokenizer = cast(DualViTok, model)
        semantic, pixel = tokenizer.semantic, tokenizer.pixel
        assert semantic is not None and pixel is not None
        scenes = drawn_scenes(noise, FIRST_PICTURES, OBJECTS)
        images = render_all(scenes, SIZE) * 2.0 - 1.0
        with torch.no_grad():
            last = semantic.encoder.proj_out[-1]
            _whiten(last, semantic.encoder.encode(images)[0])
            _whiten(pixel.to_codes, pixel.to_codes(pixel.encoder(images)))
            for name, quantiser in (("semantic", semantic.quantiser), ("pixel", pixel.quantiser)):
                _spread(quantiser, noise.normal(f"codes.{name}", quantiser.transform.weight.T.shape))

    def batch(self, noise: NoiseSource, size: int) -> dict[str, Tensor]:
        """`size` pictures in [-1, 1], what the teacher says of their cells, and their `object_weights`."""
        scenes = drawn_scenes(noise, size, OBJECTS)
        return {
            "images": render_all(scenes, SIZE) * 2.0 - 1.0,
            "meaning": teacher_features(scenes, SIZE, CELL, CHANNELS),
            "weights": object_weights(scenes, SIZE),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor], noise: NoiseSource) -> Tensor:
        """All losses of one pass, added up.

        Half of the pictures' features go on not as their codes but with noise of about the same error. Where
        few codes are in use, only they tell the encoder what else it could say.
        """
        images, tokenizer = batch["images"], cast(DualViTok, model)
        encoded = tokenizer.encode(images)
        semantic, pixel = encoded.semantic, encoded.pixel
        blurred = noise.uniform("blurred", (len(images), 2)) < BLURRED
        meaning = _passed_on(semantic, blurred[:, 0], noise.normal("meaning", semantic.features.shape))
        details = _passed_on(pixel, blurred[:, 1], noise.normal("details", pixel.features.shape))
        drawn = tokenizer.decode_codes(meaning, details)
        picture = _picture_loss(drawn, batch)
        taught = F.mse_loss(semantic.target, batch["meaning"])
        # The transformer follows its teacher, not what the codes can hold.
        returned = F.mse_loss(tokenizer.decode_features(meaning), semantic.target.detach())
        commitments = semantic.quantised.commitment + pixel.quantised.commitment
        far = _too_far(semantic.features) + _too_far(pixel.features)
        meant = TEACHING * taught + RETURNING * returned
        return DRAWING * picture + meant + HOLDING * far + commitments


def _picture_loss(drawn: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Absolute errors, squared ones, and squared ones relative to the objects, of numbers in [0, 1]."""
    images = batch["images"]
    relative = ((drawn - images).square() * 0.25 * batch["weights"]).sum((1, 2, 3)).mean()
    return F.l1_loss(drawn, images) + F.mse_loss(drawn, images) + relative


def _passed_on(codes: SemanticCodes | PixelCodes, blurred: Tensor, noise: Tensor) -> Tensor:
    """What the decoders get, [n, dim, h, w]: codes, or, where `blurred` [n] says so, features with noise."""
    features = codes.features.float()
    near = features + NOISE * noise.to(features)
    return torch.where(blurred.to(features.device)[:, None, None, None], near, codes.quantised.values)


def _too_far(features: Tensor) -> Tensor:
    """How far features [n, dim, h, w] are beyond `REACH`, squared; codes have a squared length of dim."""
    return F.relu(features.float().square().mean(1) - REACH).square().mean()


def object_weights(scenes: Sequence[Scene], size: int) -> Tensor:
    """How much a squared error counts at the objects of scenes and right beside them: [n, 1, size, size].

    Errors relative to what there is to see: an object that is missing from a picture in [0, 1] has an error
    of 1, however small or faint it is. Those of a scene are averaged.
    """
    weights = torch.zeros(len(scenes), 1, size, size)
    items = [item for scene in scenes for item in scene.items]
    rows = torch.tensor([row for row, scene in enumerate(scenes) for _ in scene.items])
    shown = visible(scenes, items, size)
    near = F.max_pool2d((shown > SEEN).float()[:, None], 3, stride=1, padding=1)
    colours, grounds = colour_table(COLOURS), colour_table(BACKGROUNDS)
    objects = colours[[list(COLOURS).index(item.colour) for item in items]]
    behind = grounds[[list(BACKGROUNDS).index(scenes[row].background) for row in rows.tolist()]]
    contrast = (objects - behind).square().sum(1)
    share = torch.tensor([1.0 / len(scenes[row].items) for row in rows.tolist()])
    scale = share / (contrast * shown.sum((1, 2)).clamp_min(LEAST_AREA))
    return weights.index_add_(0, rows, near * scale[:, None, None, None])


def _quieten(model: nn.Module) -> None:
    """Residual branches that add little at first, and norms that codes hardly change."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, SpatialNorm):
                _scale(part.scale, MODULATION, bias=1.0)
                _scale(part.shift, MODULATION)
            elif isinstance(part, ResidualBlock):
                _scale(part.conv_out, BRANCHES)
            elif isinstance(part, Attention):
                _scale(part.out, BRANCHES)


def _scale(layer: nn.Conv2d | nn.Linear, factor: float, bias: float = 0.0) -> None:
    layer.weight.mul_(factor)
    cast(Tensor, layer.bias).fill_(bias)


def _whiten(last: nn.Module, features: Tensor) -> None:
    """Change the last, linear, layer so that these features [n, channels, h, w] of its become white."""
    weight, bias = cast(Tensor, last.weight), cast(Tensor, last.bias)
    rows = features.movedim(1, -1).flatten(0, -2).double()
    variances, directions = torch.linalg.eigh(torch.cov(rows.T))
    scales = variances.clamp_min(LEAST_VARIANCE * variances[-1]).rsqrt()
    whitening = directions @ torch.diag(scales) @ directions.T
    weight.copy_((whitening @ weight.flatten(1).double()).view_as(weight))
    bias.copy_(whitening @ (bias.double() - rows.mean(0)))


def _spread(quantiser: SimVQ, directions: Tensor) -> None:
    """Make all codes standard normal; `directions` [frozen dim, dim] are random numbers."""
    orthonormal, _ = torch.linalg.qr(directions)
    quantiser.codebook.mul_(PACE)
    quantiser.transform.weight.copy_(orthonormal.T * (quantiser.config.frozen_dim**0.5 / PACE))
