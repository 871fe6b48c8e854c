"""Matryoshka Diffusion: one network that denoises at several resolutions at once (arXiv 2310.15111)."""

from zoo import hookimpl
from zoo.hookspecs import RegisterArchitecture, RegisterConverter


@hookimpl
def register_architectures(register: RegisterArchitecture) -> None:
    register(
        "mdm-unet",
        "zoo_mdm.model:UNet",
        config="zoo_mdm.config:UNetConfig",
        summary="UNet in pixel space that reads a text by cross-attention",
        offers=("denoiser", "memory-estimate"),
    )
    register(
        "mdm-nested-unet",
        "zoo_mdm.model:NestedUNet",
        config="zoo_mdm.config:NestedUNetConfig",
        summary="UNets of rising resolution, each around the one before, that denoise together",
        offers=("denoiser", "memory-estimate"),
    )


@hookimpl
def register_converters(register: RegisterConverter) -> None:
    register("apple-mdm", "zoo_mdm.convert:convert", export="zoo_mdm.convert:export")
