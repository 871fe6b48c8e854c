"""Samplers for every model that offers `denoiser`."""

from zoo import hookimpl
from zoo.hookspecs import RegisterSampler

SAMPLERS = {
    "ddpm": ("ddpm", "DDPMOptions", "ancestral: new noise at every step"),
    "ddim": ("ddim", "DDIMOptions", "deterministic, or as noisy as wanted"),
    "euler": ("euler", "EulerOptions", "first order along the probability flow"),
    "heun": ("heun", "HeunOptions", "second order, two evaluations a step"),
    "dpm++": ("dpm2", "DPMOptions", "DPM-Solver++ (2M): second order, one evaluation a step"),
    "dpm++3m": ("dpm3", "DPMOptions", "DPM-Solver++ (3M): third order, one evaluation a step"),
}


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    for name, (function, options, summary) in SAMPLERS.items():
        register(
            name,
            f"zoo_diffusion.samplers:{function}",
            options=f"zoo_diffusion.options:{options}",
            tasks=("text-to-image", "class-to-image", "unconditional"),
            needs=("denoiser",),
            summary=summary,
        )
