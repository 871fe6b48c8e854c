"""The toy methods, for every test of this folder."""

from pictures_method import given, no_loading, pictures, telling
from toy_method import few, toy, zoo

__all__ = [
    "few",
    "given",
    "no_loading",
    "pictures",
    "telling",
    "toy",
    "zoo",
]
