"""The language model agrees with transformers' Qwen2, and token by token with itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import InvalidInput
from zoo.nn.cached_language_model import CachedLanguageModel, fused_attention, two_products
from zoo.nn.kv_cache import BUCKET, cache_bytes
from zoo.nn.language_model import LanguageModel, LanguageModelConfig
from zoo.nn.products import LAYOUTS, product
from zoo.nn.rotary import rotary_angles, rotate

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}


def random_model(**changes: object) -> LanguageModel:
    torch.manual_seed(5)
    model = LanguageModel(LanguageModelConfig(**{**SIZES, **changes})).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return random_model()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(VOCABULARY, (3, 21), generator=torch.Generator().manual_seed(6))


def decoder(
    model: LanguageModel, layout: str = "rows", join: bool = True, rows: int = 4, tokens: int = 80
) -> CachedLanguageModel:
    def make(linear: nn.Linear) -> object:
        return product(linear, layout, linear.weight.dtype, keep=False)

    made = CachedLanguageModel(model, make, join)
    made.reserve(rows, tokens)
    return made


# transformers


def twin(model: LanguageModel) -> nn.Module:
    """The model in transformers, with the same weights under the same names."""
    transformers = pytest.importorskip("transformers", reason="what it is compared with")
    config = transformers.Qwen2Config(
        **{name: value for name, value in SIZES.items() if name != "rope_theta"},
        tie_word_embeddings=model.config.tie_word_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    rotary = {"rope_type": "default", "rope_theta": SIZES["rope_theta"]}
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = rotary
    else:
        config.rope_theta = SIZES["rope_theta"]
    theirs = transformers.Qwen2ForCausalLM(config).eval()
    missing = theirs.load_state_dict(model.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == (["lm_head.weight"] if model.config.tie_word_embeddings else [])
    return theirs


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_whole_sequences_agree_with_transformers(ids, tied) -> None:
    ours = random_model(tie_word_embeddings=tied)
    with torch.no_grad():
        expected = twin(ours)(ids).logits
        assert float(expected.std()) > 0.5
        assert torch.allclose(ours(ids), expected, atol=2e-5)
        assert torch.allclose(ours(ours.embed(ids)), expected, atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_agrees_with_transformers(model, ids, side) -> None:
    mask = torch.ones_like(ids)
    for row, count in ((1, 7), (2, 12)):
        mask[row, :count] = 0
    mask = mask if side == "left" else mask.flip(1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = twin(model)(ids, attention_mask=mask, position_ids=positions).logits
        for computed in (model(ids, mask=mask.bool()), model(ids, positions, mask.bool())):
            assert torch.allclose(computed[mask.bool()], expected[mask.bool()], atol=2e-5)
            assert torch.isfinite(computed).all()


@torch.inference_mode()
def test_cached_decoding_agrees_with_transformers(model, ids) -> None:
    theirs, lengths = twin(model), [21, 9, 15]
    ours = decoder(model)
    logits = ours.add([model.embed(row[:length]) for row, length in zip(ids, lengths, strict=True)])
    caches = []
    for row, length in enumerate(lengths):
        read = theirs(ids[row : row + 1, :length], use_cache=True)
        assert torch.allclose(logits[row], read.logits[0, -1], atol=2e-5)
        caches.append(read.past_key_values)
    for _ in range(20):
        tokens = logits.argmax(-1)
        logits = ours.step(model.embed(tokens))
        for row, token in enumerate(tokens):
            read = theirs(token.view(1, 1), past_key_values=caches[row], use_cache=True)
            assert torch.allclose(logits[row], read.logits[0, -1], atol=2e-5)


# Whole sequences


def test_the_path_for_training_computes_the_same(model, ids) -> None:
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :7] = False
    with torch.no_grad():
        plain, masked = model(ids), model(ids, mask=mask)
    assert torch.allclose(model(ids), plain, atol=1e-5)
    assert torch.allclose(model(ids, mask=mask)[mask], masked[mask], atol=1e-5)


def test_every_weight_gets_a_gradient(ids) -> None:
    fresh = LanguageModel(LanguageModelConfig(**SIZES))
    nn.functional.cross_entropy(fresh(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert [name for name, parameter in fresh.named_parameters() if not parameter.grad.abs().max() > 0] == []


def test_no_token_sees_what_follows_it(model, ids) -> None:
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % VOCABULARY
    assert torch.allclose(model(changed)[:, :12], model(ids)[:, :12], atol=1e-6)
    assert not torch.allclose(model(changed)[:, 12], model(ids)[:, 12], atol=1e-2)


def test_positions_count_in_the_distance_alone(model, ids) -> None:
    shifted = model(ids, torch.arange(21)[None] + 100)
    assert torch.allclose(shifted, model(ids), atol=2e-4)
    stretched = model(ids, 3 * torch.arange(21)[None])
    assert not torch.allclose(stretched, model(ids), atol=1e-2)


def test_rotation_keeps_lengths_and_adds_up() -> None:
    x, places = torch.randn(5, 16), torch.tensor([0, 1, 7, 100, 3])
    angles = rotary_angles(places, 16, 10_000.0)
    turned = rotate(x, *angles)
    assert torch.equal(turned[0], x[0])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    twice = rotate(rotate(x, *rotary_angles(places, 16, 10.0)), *rotary_angles(places + 2, 16, 10.0))
    assert torch.allclose(twice, rotate(x, *rotary_angles(2 * places + 2, 16, 10.0)), atol=1e-4)


# Token by token


@torch.inference_mode()
@pytest.mark.parametrize("join", [True, False], ids=["joined", "apart"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_agree_with_whole_sequences(model, ids, layout, join) -> None:
    """Rows of different lengths, in every layout; also past the places that attention reads at once."""
    count, lengths = BUCKET + 3, [21, 4, 13]
    longer = torch.cat([ids, torch.randint(VOCABULARY, (3, count))], 1)
    rows = decoder(model, layout, join)
    logits = rows.add([model.embed(longer[row, :length]) for row, length in enumerate(lengths)])
    whole = model(longer)
    for step in range(count):
        reached = torch.tensor(lengths) + step
        assert torch.allclose(logits, whole[torch.arange(3), reached - 1], atol=3e-5)
        logits = rows.step(model.embed(longer[torch.arange(3), reached]))


@torch.inference_mode()
def test_rows_come_and_go_without_changing_others(model, ids) -> None:
    rows, whole = decoder(model), model(ids)
    first = rows.add([model.embed(ids[0, :5]), model.embed(ids[1, :9])])
    assert torch.allclose(first, torch.stack([whole[0, 4], whole[1, 8]]), atol=3e-5)
    rows.step(model.embed(torch.stack([ids[0, 5], ids[1, 9]])))
    rows.add([model.embed(ids[2, :3])])
    joined = rows.step(model.embed(torch.stack([ids[0, 6], ids[1, 10], ids[2, 3]])))
    assert torch.allclose(joined, torch.stack([whole[0, 6], whole[1, 10], whole[2, 3]]), atol=3e-5)
    rows.remove(0)  # Now row 0 is the third sequence.
    assert rows.cache.count == 2
    left = rows.step(model.embed(torch.stack([ids[2, 4], ids[1, 11]])))
    assert torch.allclose(left, torch.stack([whole[2, 4], whole[1, 11]]), atol=3e-5)
    rows.remove(1)
    alone = rows.step(model.embed(ids[2, 5:6]))
    assert torch.allclose(alone, whole[2, 5:6], atol=3e-5)
    rows.add([model.embed(ids[0, :2])])
    again = rows.step(model.embed(torch.stack([ids[2, 6], ids[0, 2]])))
    assert torch.allclose(again, torch.stack([whole[2, 6], whole[0, 2]]), atol=3e-5)


@torch.inference_mode()
def test_prompts_are_read_in_parts_of_bounded_size(model, ids, monkeypatch) -> None:
    monkeypatch.setattr("zoo.nn.cached_language_model.READ_AT_ONCE", 25)
    whole = model(ids)
    rows, read = decoder(model), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda x, **more: read.append(x.shape[:2]) or hidden(x, **more))
    prompts = [ids[0, :12], ids[1, :5], ids[2, :9]]
    logits = rows.add([model.embed(prompt) for prompt in prompts])
    assert read == [(2, 12), (1, 9)]
    assert torch.allclose(logits, torch.stack([whole[0, 11], whole[1, 4], whole[2, 8]]), atol=3e-5)
    after = rows.step(model.embed(torch.stack([ids[0, 12], ids[1, 5], ids[2, 9]])))
    assert torch.allclose(after, torch.stack([whole[0, 12], whole[1, 5], whole[2, 9]]), atol=3e-5)


def test_fused_attention_computes_the_same() -> None:
    queries, keys, values = torch.randn(6, 3, 8), torch.randn(6, 8, 40), torch.randn(6, 40, 8)
    seen = torch.zeros(6, 1, 40)
    for row, length in enumerate((1, 5, 40, 33, 2, 17)):
        seen[row, :, length:] = float("-inf")
    expected = two_products(queries, keys, values, seen, 0.3)
    assert torch.allclose(fused_attention(queries, keys, values, seen, 0.3), expected, atol=1e-6)
    assert torch.allclose(expected[0], values[0, :1].expand(3, -1), atol=1e-6)


@torch.inference_mode()
def test_memory_is_allocated_only_to_grow(model, ids) -> None:
    rows, whole = decoder(model, rows=2, tokens=30), model(ids)
    place = rows.cache.entries.data_ptr()
    size = cache_bytes(2, 2, 2, 30, 8, torch.float32)
    assert rows.cache.entries.nbytes == size
    for _ in range(2):
        rows.reserve(2, 25)
        logits = rows.add([model.embed(ids[0, :8]), model.embed(ids[1, :3])])
        for step in range(10):
            expected = torch.stack([whole[0, 7 + step], whole[1, 2 + step]])
            assert torch.allclose(logits, expected, atol=3e-5)
            logits = rows.step(model.embed(torch.stack([ids[0, 8 + step], ids[1, 3 + step]])))
        assert rows.cache.entries.data_ptr() == place
    rows.reserve(3, 25)
    assert rows.cache.entries.nbytes == size // 2 * 3
    assert torch.allclose(rows.add([model.embed(ids[2, :8])])[0], whole[2, 7], atol=3e-5)


@torch.inference_mode()
def test_a_full_cache_says_so(model, ids) -> None:
    rows = decoder(model, rows=1, tokens=BUCKET)
    with pytest.raises(ValueError, match="no room for 2 rows"):
        rows.add([model.embed(ids[0]), model.embed(ids[1])])
    rows.add([model.embed(ids[0])])
    for _ in range(BUCKET - ids.shape[1]):
        rows.step(model.embed(ids[0, :1]))
    with pytest.raises(ValueError, match=f"room for {BUCKET} tokens"):
        rows.step(model.embed(ids[0, :1]))


@torch.inference_mode()
def test_half_formats_stay_close(ids) -> None:
    """The residual stream is float32, so the error is that of rounded weights and inputs of products."""
    exact, halved = random_model(), random_model().to(torch.bfloat16)
    rows = decoder(halved)
    rows.add([halved.embed(ids[0, :8])])
    for place in range(8, 14):
        logits = rows.step(halved.embed(ids[0, place : place + 1]))
    whole = exact(ids)[0, 13]
    assert logits.dtype == torch.float32
    assert float((logits[0] - whole).abs().mean()) < 0.05 * float(whole.std())


# Configuration


def test_a_configuration_of_transformers_is_read() -> None:
    extra = {"arch": "Qwen2", "hidden_act": "silu", "max_position_embeddings": 512, "rope_scaling": None}
    config = LanguageModelConfig.from_transformers({**SIZES, **extra, "tie_word_embeddings": True})
    assert config == LanguageModelConfig(**SIZES, tie_word_embeddings=True)
    assert config.head_dim == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is"),
        ({"head_dim": 16}, "head_dim is 16, expected 8"),
        ({"hidden_size": 50}, "hidden_size is 50"),
        ({"num_key_value_heads": 4}, "expected a multiple of num_key_value_heads, 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ],
)
def test_other_networks_are_refused(change, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        LanguageModelConfig.from_transformers({**SIZES, **change})


def test_a_missing_size_is_named() -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "vocab_size"}
    with pytest.raises(InvalidInput, match="vocab_size"):
        LanguageModelConfig.from_transformers(sizes)


def test_the_meta_device_takes_a_model_of_full_size() -> None:
    """Qwen2.5-3B with the vocabulary of ILLUME+: no memory, and the names and shapes of its checkpoint."""
    with torch.device("meta"):
        large = LanguageModel(LanguageModelConfig(283047, 2048, 11008, 36, 16, 2, tie_word_embeddings=True))
    shapes = {name: list(tensor.shape) for name, tensor in large.state_dict().items()}
    assert "lm_head.weight" not in shapes
    assert shapes["model.embed_tokens.weight"] == [283047, 2048]
    assert shapes["model.layers.35.self_attn.k_proj.bias"] == [256]
    assert shapes["model.layers.0.mlp.down_proj.weight"] == [2048, 11008]
    assert "model.layers.0.self_attn.o_proj.bias" not in shapes
