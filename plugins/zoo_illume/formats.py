"""What is written around a request before the language model reads it (ILLUME+'s inference scripts)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PromptFormats:
    """Texts with places in braces: {prompt} is the user's text, {picture} a picture that is read, {size} the
    two tokens of the picture's height and width, {message} one of the other formats filled in.

    Every task that draws has a second message, which the unconditional branch of guidance reads. Behind the
    frame of a task that draws stands the size again. `question` is asked where the user asks nothing.
    """

    frame: str = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
    )
    draw: str = "Generate an image of {size}, the content of image is {prompt}\n"
    draw_anything: str = "Generate a random image of {size}\n"
    edit: str = "{size}{picture}\nPlease edit the image according to the instruction: {prompt}\n"
    edit_nothing: str = "{size}{picture}\nReconstruct the image according to the given image\n"
    ask: str = "{picture}\n{prompt}"
    question: str = "Describe the image."
    text: str = "{prompt}"
