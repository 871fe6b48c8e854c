"""Matryoshka Diffusion: one network that denoises at several resolutions at once (arXiv 2310.15111)."""

from zoo import hookimpl, hookspecs


@hookimpl
def register_architectures(register: hookspecs.RegisterArchitecture) -> None:
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
    register(
        "t5-encoder",
        "zoo_mdm.t5:T5Encoder",
        config="zoo_mdm.t5:T5EncoderConfig",
        summary="encoder of T5 v1.1 and flan-T5 (needs zoo[mdm])",
        offers=("text-encoder", "reads-files", "memory-estimate"),
    )


@hookimpl
def register_converters(register: hookspecs.RegisterConverter) -> None:
    register("apple-mdm", "zoo_mdm.convert:convert", export="zoo_mdm.convert:export")
    register("t5-encoder", "zoo_mdm.t5:encoder_tensors", summary="the encoder's tensors of a whole T5")


@hookimpl
def register_recipes(register: hookspecs.RegisterRecipe) -> None:
    register("mdm-shapes", "zoo_mdm.recipe:ShapesRecipe", summary="captioned scenes of the shapes world")
