"""Sampling through the public interface: seeds, batches, guidance, previews, errors."""

from __future__ import annotations

import pytest
import torch

from zoo.errors import InvalidInput
from zoo.io.request import Request
from zoo.runtime.model import LoadedModel
from zoo_tarflow.model import TarFlow
from zoo_tarflow.sampler import TarFlowOptions, invert


def pictures(loaded: LoadedModel, **request: object) -> torch.Tensor:
    return torch.stack([image.pixels for image in loaded.sample(Request(**request))])  # type: ignore[arg-type]


def test_same_seed_same_picture_whatever_the_batch(loaded: LoadedModel) -> None:
    request = {"prompts": "a red circle", "num": 16, "seed": 7}
    whole = pictures(loaded, **request, batch_size=16)
    for batch_size in (1, 4):
        assert torch.allclose(pictures(loaded, **request, batch_size=batch_size), whole, atol=1e-4)
    alone = pictures(loaded, prompts="a red circle", seed=12)
    assert torch.allclose(alone[0], whole[5], atol=1e-4)
    assert not torch.allclose(whole[0], whole[1], atol=0.05)


def test_global_random_state_is_neither_read_nor_moved(loaded: LoadedModel) -> None:
    torch.manual_seed(1)
    first, state = pictures(loaded, num=2), torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(pictures(loaded, num=2), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_provenance_tells_everything(loaded: LoadedModel) -> None:
    (image,) = loaded.sample(Request(prompts="a blue square", seed=3, guidance=0.5))
    provenance = image.provenance
    assert provenance is not None
    assert (provenance.reference, provenance.prompt, provenance.class_name) == (
        "tiny:flow",
        "a blue square",
        "blue square",
    )
    assert (provenance.class_id, provenance.seed, provenance.sampler) == (3, 3, "tarflow")
    assert provenance.options["guidance"] == 0.5 and provenance.options["noise_std"] == 0.1
    assert (provenance.dtype, provenance.device) == ("float32", "cpu")


def test_classes_by_name_and_number_agree_with_the_prompt(loaded: LoadedModel) -> None:
    by_prompt = pictures(loaded, prompts="the red square")
    assert torch.equal(pictures(loaded, classes=["red square"]), by_prompt)
    assert torch.equal(pictures(loaded, classes=[1]), by_prompt)


def test_without_a_class_each_seed_draws_one(loaded: LoadedModel) -> None:
    names = [image.provenance.class_name for image in loaded.sample(Request(num=24))]
    assert len(set(names)) == 4
    assert names[5] == next(iter(loaded.sample(Request(seed=5)))).provenance.class_name


def test_previews_do_not_change_the_result(loaded: LoadedModel) -> None:
    steps: list[tuple[int, int]] = []
    previews: list[torch.Tensor] = []

    def on_step(step: int, total: int, preview: torch.Tensor | None) -> None:
        steps.append((step, total))
        if preview is not None:
            previews.append(preview.clone())
            preview.zero_()

    watched = [image.pixels for image in loaded.sample(Request(seed=2), on_step)]
    assert torch.equal(watched[0], pictures(loaded, seed=2)[0])
    assert steps[-1] == (45, 45) and sorted(steps) == steps
    assert len(previews) == 3 and not previews[0].requires_grad


def straightforward(flow: TarFlow, z: torch.Tensor, labels: torch.Tensor, o: TarFlowOptions) -> torch.Tensor:
    """Guided inversion without a cache: the whole prefix is read again for every token."""
    x = z * flow.prior_variance.sqrt()
    for block in reversed(flow.blocks):
        x = block.in_order(x).clone()
        position, tokens = block.in_order(block.position, 0), x.shape[1]
        for i in range(tokens - 1):
            results = []
            for chosen, scale in ((labels, 1.0), (None, 1.0 / o.attention_temperature)):
                hidden = block.embed(x[:, : i + 1], position[: i + 1], block.class_vector(chosen))
                for layer in block.layers:
                    attention = layer.attention
                    n, t, _ = hidden.shape
                    qkv = attention.qkv(attention.norm(hidden)).view(
                        n, t, 3, attention.heads, attention.head_dim
                    )
                    q, k, v = qkv.permute(2, 0, 3, 1, 4)
                    logits = scale * q @ k.transpose(-1, -2) * attention.head_dim**-0.5
                    logits = logits.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
                    hidden = hidden + attention.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
                    hidden = hidden + layer.feedforward(hidden)
                results.append(block.split(block.project_out(hidden[:, -1])))
            (alpha, mu), (alpha_u, mu_u) = results
            g = o.guidance * ((i + 1) / (tokens - 1) if o.anneal else 1.0)
            alpha = alpha + g * (alpha - alpha_u) if "a" in o.guide else alpha
            mu = mu + g * (mu - mu_u) if "b" in o.guide else mu
            x[:, i + 1] = x[:, i + 1] * alpha.exp() + mu
        x = block.in_order(x)
    return flow.unpatchify(x)


@pytest.mark.parametrize(
    "options",
    [
        TarFlowOptions(guidance=1.5, anneal=False),
        TarFlowOptions(guidance=2.0, guide="a"),
        TarFlowOptions(guidance=2.0, guide="b", attention_temperature=0.5),
        TarFlowOptions(guidance=0.7, attention_temperature=1.6),
        TarFlowOptions(guidance=3.0, guide=""),
        TarFlowOptions(),
    ],
    ids=str,
)
def test_cached_sampling_equals_the_straightforward_form(flow: TarFlow, options: TarFlowOptions) -> None:
    z = torch.randn(3, 16, 12, generator=torch.Generator().manual_seed(9))
    labels = torch.tensor([0, 1, 3])
    sampled = invert(flow, z, labels, options, lambda step, total, preview: None)
    assert torch.allclose(sampled, straightforward(flow, z, labels, options), atol=1e-4)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompts": "a red hexagon"}, "'hexagon'"),
        ({"prompts": "red"}, "does not name exactly one class"),
        ({"classes": [4]}, "out of range, expected 0 to 3"),
        ({"classes": ["green circle"]}, "no class 'green circle'"),
        ({"steps": 5}, "no option 'steps'"),
        ({"options": {"guide": "c"}}, "expected one of"),
        ({"options": {"denoise": "much"}}, "expected a number"),
        ({"options": {"attention_temperature": 0}}, "expected a positive number"),
        ({"guidance": -1}, "at least 0"),
        ({"sampler": "tarflov"}, "no plugin provides the sampler"),
    ],
)
def test_bad_requests_are_refused_before_any_work(loaded: LoadedModel, request_: dict, message: str) -> None:
    from zoo.errors import ZooError

    with pytest.raises(ZooError, match=message):
        loaded.sample(Request(**request_))


def test_another_size_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(InvalidInput, match="pictures of 8x8"):
        list(loaded.sample(Request(size=(16, 16))))


def test_memory_estimate_grows_with_the_batch(loaded: LoadedModel) -> None:
    one, many = (loaded.model.sampling_memory(n, torch.float32, loaded.device) for n in (1, 10))
    assert 0 < one * 9 < many < one * 11


def test_a_failed_allocation_halves_the_batch(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo_tarflow.sampler as sampler

    whole, sizes, inner = pictures(loaded, num=6), [], sampler.invert

    def starved(model, latents, *rest):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return inner(model, latents, *rest)

    monkeypatch.setattr(sampler, "invert", starved)
    assert torch.allclose(pictures(loaded, num=6), whole, atol=1e-4)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]


def test_likelihood_in_nats_and_bits(loaded: LoadedModel, flow: TarFlow) -> None:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=generator)
    uniform = torch.rand(2, 3, 8, 8, generator=generator)
    bits = loaded.bits_per_dim(pixels, uniform)
    nats = loaded.log_prob(2 * (pixels + uniform) / 256 - 1)
    dimensions = 3 * 8 * 8
    expected = 7 - nats / dimensions / torch.log(torch.tensor(2.0))
    assert torch.allclose(bits, expected, atol=1e-4)
    assert not torch.allclose(loaded.log_prob(pixels / 128.0 - 1, ["red circle", 3]), nats, atol=1.0)
