"""The toy method, variants of it whose weights lie on servers, and a hub with a repository."""

from far_models import far
from hub_cases import cache, model, server
from toy_method import few, toy, zoo

__all__ = ["cache", "far", "few", "model", "server", "toy", "zoo"]
