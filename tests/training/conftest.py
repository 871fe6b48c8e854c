"""The toy method, for the tests that train it."""

from toy_method import toy, toy_site

__all__ = ["toy", "toy_site"]
