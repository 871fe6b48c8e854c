"""Spectral synthesis: pictures as Gaussian random fields with a power-law spectrum."""

from zoo import hookimpl


@hookimpl
def register_architectures(register):
    register(
        "spectral",
        "zoo_spectral.field:Field",
        config="zoo_spectral.field:FieldConfig",
        summary="stationary Gaussian field: a mean, a colour mixing and a power-law spectrum",
        offers=("gaussian-field",),
    )


@hookimpl
def register_converters(register):
    register("field-statistics", "zoo_spectral.field:convert", export="zoo_spectral.field:export")


@hookimpl
def register_samplers(register):
    register(
        "spectral",
        "zoo_spectral.field:sample",
        options="zoo_spectral.field:SpectralOptions",
        tasks=("unconditional",),
        needs=("gaussian-field",),
        summary="white noise, filtered and mixed",
    )


@hookimpl
def register_recipes(register):
    register("spectral-clouds", "zoo_spectral.field:CloudsRecipe", summary="pictures of the shapes world")
