"""What the plugin registers; free of torch, like the package itself."""

from zoo import hookimpl, hookspecs

#: Architectures that read pictures the way ILLUME+ does; see `zoo_illume.model.IllumePlus`.
_READS_PICTURES = ("token-lm", "dual-pictures")


@hookimpl
def register_architectures(register: hookspecs.RegisterArchitecture) -> None:
    """The tokenizers of pictures and texts, the model, and the decoder by diffusion."""
    register(
        "dualvitok",
        "zoo_illume.dualvitok:DualViTok",
        config="zoo_illume.config:DualViTokConfig",
        summary="tokenizer of pictures: codes of their meaning and of their pixels, and a decoder",
        offers=("dual-codes", "memory-estimate"),
    )
    register(
        "illume-plus",
        "zoo_illume.model:IllumePlus",
        config="zoo_illume.model_config:IllumeConfig",
        summary="language model that reads pictures as features and writes them as codes",
        offers=(*_READS_PICTURES, "memory-estimate"),
    )
    register(
        "qwen2-text",
        "zoo_illume.qwen_text:QwenText",
        config="zoo_illume.qwen_text:QwenTextConfig",
        summary="tokenizer of texts from the files of Qwen2.5",
        offers=("text-tokenizer", "reads-files"),
    )
    register(
        "illume-words",
        "zoo_illume.words:Words",
        config="zoo_illume.words:WordsConfig",
        summary="tokenizer of texts that knows a list of words",
        offers=("text-tokenizer",),
    )
    register(
        "illume-sdxl",
        "zoo_illume.sdxl:SdxlDecoder",
        config="zoo_illume.sdxl:SdxlConfig",
        summary="decoder of codes to pictures of twice the size, by diffusion",
        offers=("code-decoder", "reads-files", "memory-estimate"),
    )


@hookimpl
def register_converters(register: hookspecs.RegisterConverter) -> None:
    """Of the authors' files, and of a folder of diffusers."""
    register(
        "illume-dualvitok",
        "zoo_illume.convert:convert",
        export="zoo_illume.convert:export",
        summary="the dual tokenizer's tensors, with its codebooks",
    )
    register(
        "illume-plus",
        "zoo_illume.convert_model:convert",
        export="zoo_illume.convert_model:export",
        summary="language model, vision tower and projectors of ILLUME+, as the authors' files hold them",
    )
    register(
        "illume-sdxl",
        "zoo_illume.sdxl_convert:convert",
        summary="network and autoencoder of a folder of diffusers, as the diffusion decoder has them",
    )


@hookimpl
def register_samplers(register: hookspecs.RegisterSampler) -> None:
    """One for each task, and one for a tokenizer alone."""
    needs = _READS_PICTURES
    register(
        "illume-draw",
        "zoo_illume.drawing:draw",
        options="zoo_illume.options:DrawOptions",
        tasks=("text-to-image",),
        needs=needs,
        summary="a picture from a text, code by code with guidance",
    )
    register(
        "illume-edit",
        "zoo_illume.drawing:edit",
        options="zoo_illume.options:EditOptions",
        tasks=("image-editing",),
        needs=needs,
        summary="a picture changed as an instruction says",
        images=("image",),
        prompt="required",
    )
    register(
        "illume-describe",
        "zoo_illume.writing:describe",
        options="zoo_illume.options:TextOptions",
        tasks=("image-to-text",),
        needs=needs,
        summary="a picture described, or a question about it answered",
        makes="text",
        images=("image",),
    )
    register(
        "illume-text",
        "zoo_illume.writing:write",
        options="zoo_illume.options:TextOptions",
        tasks=("text-to-text",),
        needs=needs,
        summary="an answer to a text",
        makes="text",
        prompt="required",
    )
    register(
        "dualvitok",
        "zoo_illume.reconstructing:reconstruct",
        options="zoo_illume.options:ReconstructOptions",
        tasks=("reconstruction",),
        needs=("dual-codes",),
        summary="a picture through its codes and back",
        images=("image",),
        prompt="none",
    )


@hookimpl
def register_recipes(register: hookspecs.RegisterRecipe) -> None:
    """The two trainings of illume:shapes."""
    register(
        "illume-shapes-tokenizer",
        "zoo_illume.tokenizer_recipe:ShapesTokenizerRecipe",
        summary="the dual tokenizer of the shapes world",
    )
    register(
        "illume-shapes",
        "zoo_illume.recipe:ShapesRecipe",
        summary="drawing, editing, describing and answering in the shapes world",
    )
