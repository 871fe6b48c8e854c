"""The toy method, and variants of it whose weights lie on servers."""

from far_models import far
from toy_method import few, toy, toy_site, zoo

__all__ = ["far", "few", "toy", "toy_site", "zoo"]
