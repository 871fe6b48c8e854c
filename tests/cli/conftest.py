"""The toy methods, for every test of this folder."""

from pictures_method import given, no_loading, pictures, pictures_site, telling
from toy_method import few, toy, toy_site, zoo

__all__ = [
    "few",
    "given",
    "no_loading",
    "pictures",
    "pictures_site",
    "telling",
    "toy",
    "toy_site",
    "zoo",
]
