"""A tiny third-party method for tests: it paints single objects of the shapes world, exactly."""

from __future__ import annotations

from zoo import hookimpl


@hookimpl
def register_architectures(register):
    register(
        "toy",
        "zoo_toy.model:Toy",
        config="zoo_toy.model:ToyConfig",
        offers=("painter", "likelihood", "memory-estimate", "autoregressive-flow"),
    )
    register("toy-broken", "zoo_toy.model:broken", config="zoo_toy.model:ToyConfig")


@hookimpl
def register_samplers(register):
    register("toy", "zoo_toy.sampling:sample", options="zoo_toy.sampling:ToyOptions", needs=("painter",))
    register("toy-flat", "zoo_toy.sampling:flat", options="zoo_toy.sampling:FlatOptions", needs=("painter",))
    register(
        "toy-needy", "zoo_toy.sampling:flat", options="zoo_toy.sampling:FlatOptions", needs=("denoiser",)
    )
    register("toy-missing", "zoo_toy.absent:sample", options="zoo_toy.absent:Options")


@hookimpl
def register_recipes(register):
    register("toy", "zoo_toy.recipe:ToyRecipe")
    register("toy-held-out", "zoo_toy.recipe:HeldOutRecipe")
