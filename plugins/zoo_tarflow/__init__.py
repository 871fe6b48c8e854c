"""TarFlow: transformer autoregressive flow on image patches (arXiv 2412.06329)."""

from zoo import hookimpl
from zoo.hookspecs import RegisterArchitecture, RegisterConverter, RegisterRecipe, RegisterSampler


@hookimpl
def register_architectures(register: RegisterArchitecture) -> None:
    register(
        "tarflow",
        "zoo_tarflow.model:TarFlow",
        config="zoo_tarflow.model:TarFlowConfig",
        summary="exact invertible map between images and noise, autoregressive over patches",
        offers=("autoregressive-flow", "likelihood", "memory-estimate"),
    )


@hookimpl
def register_samplers(register: RegisterSampler) -> None:
    register(
        "tarflow",
        "zoo_tarflow.sampler:sample",
        options="zoo_tarflow.sampler:TarFlowOptions",
        tasks=("class-to-image", "unconditional"),
        needs=("autoregressive-flow",),
        summary="guided sequential inversion and one denoising step",
    )


@hookimpl
def register_converters(register: RegisterConverter) -> None:
    register("apple-tarflow", "zoo_tarflow.convert:convert", export="zoo_tarflow.convert:export")


@hookimpl
def register_recipes(register: RegisterRecipe) -> None:
    register(
        "tarflow-shapes", "zoo_tarflow.recipe:ShapesRecipe", summary="single objects of the shapes world"
    )
