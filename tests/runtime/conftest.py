"""The toy method, for every test of this folder."""

from toy_method import few, toy, toy_site, zoo

__all__ = ["few", "toy", "toy_site", "zoo"]
