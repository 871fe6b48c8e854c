"""A third-party plugin for tests whose samplers read pictures, for tasks that a card names."""

from __future__ import annotations

from zoo import hookimpl


@hookimpl
def register_samplers(register):
    def toy(name, options, **more):
        function = name.removeprefix("toy-")
        home = "zoo_toy_pictures.sampling"
        register(name, f"{home}:{function}", options=f"{home}:{options}", needs=("painter",), **more)

    toy("toy-plain", "PlainOptions", tasks=("unconditional",), prompt="none")
    toy("toy-mirror", "MirrorOptions", tasks=("image-editing",), images=("image",), prompt="required")
    toy("toy-tell", "TellOptions", tasks=("image-to-text",), images=("image",), makes="text")
    toy(
        "toy-blend",
        "PlainOptions",
        tasks=("image-editing", "blending"),
        images=("image", "other"),
        optional_images=("mask",),
    )
