"""A third-party plugin for tests whose samplers make layered images, and notes, a kind of its own."""

from __future__ import annotations

from zoo import hookimpl


@hookimpl
def register_architectures(register):
    register(
        "toy-reader",
        "zoo_toy_kinds.reader:Reader",
        config="zoo_toy_kinds.reader:ReaderConfig",
        offers=("text-encoder",),
    )


@hookimpl
def register_samplers(register):
    def toy(name, function, **more):
        options = "zoo_toy_kinds.sampling:KindOptions"
        register(name, f"zoo_toy_kinds.sampling:{function}", options=options, needs=("painter",), **more)

    toy("toy-layers", "layers", tasks=("text-to-layers",), makes="layers", part_prompts=True)
    toy("toy-notes", "notes", makes="zoo_toy_kinds.notes:Note")
    toy("toy-composite", "composite", part_prompts=True)
    toy("toy-mistaken", "layers", part_prompts=True)
    toy("toy-unknown", "layers", makes="hologram")
