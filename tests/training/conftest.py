"""The toy method, for the tests that train it."""

from toy_method import toy

__all__ = ["toy"]
