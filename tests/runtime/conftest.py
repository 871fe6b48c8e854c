"""The toy method, for every test of this folder."""

from toy_method import few, toy, zoo

__all__ = ["few", "toy", "zoo"]
