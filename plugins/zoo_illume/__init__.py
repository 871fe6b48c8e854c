"""ILLUME+: one model that reads, draws and edits pictures through a dual tokenizer (arXiv 2504.01934)."""

from zoo_illume.registration import (
    register_architectures,
    register_converters,
    register_recipes,
    register_samplers,
)

__all__ = [
    "register_architectures",
    "register_converters",
    "register_recipes",
    "register_samplers",
]
