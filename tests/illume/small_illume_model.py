"""A small model of ILLUME+ whose weights are all in use, for tests. Its cells are 14 and 4 pixels wide."""

from __future__ import annotations

from typing import Any

from small_illume import randomised

from zoo_illume.model import IllumePlus
from zoo_illume.model_config import IllumeConfig

START, END, LINE, END_OF_TEXT = 40, 41, 42, 2
LEVEL_STARTS, LEVEL_ENDS = (43, 45), (44, 46)
VOCABULARY, WIDTH, FACTOR, CELL = 100, 32, 4, 14

CONFIG: dict[str, Any] = {
    "language_model": {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vit": {"depth": 1, "width": 16, "heads": 2, "expansion": 2, "out_channels": 12, "merge": 1},
    "encoder": {
        "channels": 8,
        "latent": 4,
        "multipliers": [1, 1, 2],
        "residual_blocks": 1,
        "attention_levels": [2],
        "norm_groups": 4,
    },
    "tokens": {
        "start_of_image": START,
        "end_of_image": END,
        "end_of_line": LINE,
        "start_of_level": LEVEL_STARTS,
        "end_of_level": LEVEL_ENDS,
        "end_of_text": END_OF_TEXT,
        "first_height": 50,
        "first_width": 54,
        "size_step": 28,
        "sizes": 4,
        "first_code": [60, 70],
        "codes": [10, 20],
    },
    "sizes": [[28, 56], [56, 56]],
}


def small_model(**changes: Any) -> IllumePlus:
    """A model whose weights are all in use."""
    model = randomised(IllumePlus(IllumeConfig(**{**CONFIG, **changes})))
    assert isinstance(model, IllumePlus)
    return model.requires_grad_(False)
