"""LayerDiff: a picture's layers and their masks, denoised together (arXiv 2403.11929)."""

from zoo import hookimpl, hookspecs


@hookimpl
def register_architectures(register: hookspecs.RegisterArchitecture) -> None:
    register(
        "layerdiff",
        "zoo_layerdiff.model:LayerDiff",
        config="zoo_layerdiff.config:LayerDiffConfig",
        summary="UNet over the layers of a picture, which see each other and a prompt each",
        offers=("layered-denoiser", "memory-estimate"),
    )


@hookimpl
def register_samplers(register: hookspecs.RegisterSampler) -> None:
    register(
        "layerdiff",
        "zoo_layerdiff.sampler:sample",
        options="zoo_layerdiff.options:LayerDiffOptions",
        tasks=("text-to-layers",),
        needs=("layered-denoiser",),
        makes="layers",
        part_prompts=True,
        optional_images=("layers",),
        summary="layers and masks together, with self-mask guidance; draws single layers anew",
    )


@hookimpl
def register_converters(register: hookspecs.RegisterConverter) -> None:
    register("sd15-unet", "zoo_layerdiff.convert:convert", summary="Stable Diffusion 1.5's UNet, widened")


@hookimpl
def register_recipes(register: hookspecs.RegisterRecipe) -> None:
    register("layerdiff-shapes", "zoo_layerdiff.recipe:ShapesRecipe", summary="shapes world in layers")
