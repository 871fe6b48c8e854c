"""What a request gives to the language model: prompts through its tokenizer, pictures through its eyes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.model import LoadedModel
from zoo.runtime.sampling import Batch
from zoo_illume.model import PIXELS_AT_ONCE, IllumePlus
from zoo_illume.model_config import IllumeConfig
from zoo_illume.prompting import Prompts
from zoo_illume.together import groups


def check_component(loaded: LoadedModel, role: str) -> None:
    """Raise `InvalidInput` where a variant has no module of this role beside its model."""
    if role not in loaded.components:
        raise InvalidInput(
            f"{loaded.reference} has no {role}, which this needs",
            "Its card has to name one among components.",
        )


def prompts_of(loaded: LoadedModel) -> Prompts:
    """What writes the prompts of a model."""
    check_component(loaded, "text_tokenizer")
    config: IllumeConfig = loaded.model.config
    return Prompts(config.formats, loaded.components["text_tokenizer"], config.tokens)


def worded(loaded: LoadedModel, text: str | None, task: str) -> str | None:
    """A user's text for a registered task in the words that the model was trained with.

    Models of the shapes world know one way to say a thing, and users have many. Raises `InvalidInput` for a
    text that means nothing there.
    """
    if text is None or loaded.variant.captions != "shapes":
        return text
    # Imported here: the grammars are needed by models of that world alone.
    from zoo.shapes.asking import check_prompt

    return check_prompt(text, (task,))


def given_pictures(batch: Batch) -> list[Tensor]:
    """The picture of each sample, [3, h, w] in [0, 1]; raises `InvalidInput` where one has none."""
    pictures = []
    for picture in batch.images_of("image"):
        if picture is None:
            raise InvalidInput("a picture to read is missing", "Give it with --image FILE.")
        if picture.dim() != 3:
            raise InvalidInput(
                f"a picture has shape {list(picture.shape)}, expected [3, h, w]: it is a stack of layers",
                "Give one picture of what the layers show together.",
            )
        pictures.append(picture)
    return pictures


@torch.no_grad()
def read(
    loaded: LoadedModel, pictures: Sequence[Tensor], prepare: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Embeddings [tokens, width] of pictures; one that several samples have is read once.

    prepare: a picture [3, h, w] in [0, 1] to what the model looks at, [3, H, W] in [-1, 1].
    """
    model: IllumePlus = loaded.model
    prepared = {id(picture): prepare(picture) for picture in {id(one): one for one in pictures}.values()}
    names, images = list(prepared), list(prepared.values())
    made: dict[int, Tensor] = {}
    for members in groups([(image.shape[1], image.shape[2]) for image in images], PIXELS_AT_ONCE):
        looked = model.read(torch.stack([images[index] for index in members]).to(loaded.device))
        made |= zip((names[index] for index in members), looked, strict=True)
    return [made[id(picture)] for picture in pictures]


@torch.no_grad()
def embedded(loaded: LoadedModel, ids: Sequence[int], pictures: Sequence[Tensor] = ()) -> Tensor:
    """A prompt's ids and the pictures at its marks as embeddings [tokens, width]."""
    model: IllumePlus = loaded.model
    return model.embed_prompt(torch.tensor(ids), pictures)
