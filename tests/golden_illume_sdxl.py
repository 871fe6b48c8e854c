"""How the golden case of the diffusion decoder runs: the registered architecture, a scripted network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from golden_cases import GoldenCase, Outputs
from torch import Tensor, nn

from zoo.diffusion.solvers import Preview
from zoo.registry import resolve
from zoo.runtime.noise import RecordedNoise
from zoo.session import Session
from zoo_illume.sdxl import SdxlDecoder
from zoo_illume.sdxl_sampling import PREFIX, latents
from zoo_illume.sdxl_schedule import scheduling_from

METHOD, ARCHITECTURE, LATENT_CHANNELS = "illume", "illume-sdxl", 4


class ScriptedUnet(nn.Module):
    """A network that is linear in each pixel's channels, called as diffusers' is; keeps what it was fed."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.calls: list[dict[str, Tensor]] = []

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        *,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Mapping[str, Tensor],
        return_dict: bool,
    ) -> tuple[Tensor]:
        assert not return_dict
        fed = {"sample": sample, "timestep": timestep, "text": encoder_hidden_states, **added_cond_kwargs}
        self.calls.append({name: tensor.clone() for name, tensor in fed.items()})
        sizes = 0.05 * torch.sin(added_cond_kwargs["time_ids"][:, 5])
        mixed = torch.einsum("oc,nchw->nohw", self.weight, sample)
        return (mixed + self.bias[:, None, None] + sizes[:, None, None, None],)


def scripted_decoder(
    session: Session, unet: nn.Module, vae: nn.Module, code_channels: int, /, **config: Any
) -> SdxlDecoder:
    """The registered architecture around modules of the tests', which need no diffusers."""
    session.use(session.catalogue.cards[METHOD])
    entry = session.registry.architectures.find(ARCHITECTURE)
    settings = {"unet": {"in_channels": LATENT_CHANNELS + code_channels}, **config}
    made = resolve(entry.config, entry.owner)(**settings)
    decoder = resolve(entry.build, entry.owner)(made, unet=unet, vae=vae)
    assert isinstance(decoder, SdxlDecoder)
    return decoder.eval().requires_grad_(False)


def is_decoder(case: GoldenCase) -> bool:
    """Whether a case is one of these."""
    return "unet_weight" in case.facts["call"].get("inputs", {})


def sdxl_decoder_wiring(case: GoldenCase, session: Session) -> Outputs:
    """Every output of the case, from a run of the decoder's own sampling."""
    call, config = case.facts["call"], case.facts["config"]
    unet = ScriptedUnet(case.io["unet_weight"], case.io["unet_bias"])
    # Every level of an autoencoder but the first halves the sides.
    vae = {"block_out_channels": [1] * int(config["vae_factor"]).bit_length()}
    decoder = scripted_decoder(session, unet, nn.Identity(), config["code_channels"], vae=vae)
    settings = {**config["scheduler"], "_class_name": f"{config['scheduler']['type']}Scheduler"}
    decoder.scheduling = scheduling_from(settings, "case.json")
    size, steps, guidance = (call["H"], call["W"]), call["num_inference_steps"], call["guidance_scale"]
    alphas = decoder.scheduling.path(steps).levels[0].alphas
    after: list[Tensor] = []

    def on_step(step: int, total: int, preview: Preview) -> None:
        # The library's coordinates are those in which the signal keeps its size.
        after.append(preview.state() / alphas[(step - 1) % steps + 1])

    noise = RecordedNoise({f"{PREFIX}start.level0": case.io["noise"]})
    final = latents(decoder, case.io["vq_embeds"], size, noise, steps, guidance, on_step)
    # Large pictures are drawn a few at a time: the first step of each group is that of the whole batch.
    firsts, halves = unet.calls[::steps], 2 if guidance > 1 else 1
    yield "timesteps", torch.stack([fed["timestep"][0] for fed in unet.calls[:steps]])
    yield "time_ids", joined([fed["time_ids"] for fed in firsts], halves)
    yield "unet_input_first_corner", joined([fed["sample"][:, :, :8, :8] for fed in firsts], halves)
    yield "latents_step0", torch.cat(after[::steps])
    yield "latents_final", final


def joined(groups: Sequence[Tensor], halves: int) -> Tensor:
    """Groups of rows as one batch, which has the groups' first halves first."""
    split = [group.chunk(halves) for group in groups]
    return torch.cat([half for same in zip(*split, strict=True) for half in same])
