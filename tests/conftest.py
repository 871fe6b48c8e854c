"""Options and settings that all tests share."""

from __future__ import annotations

import os

import pytest
from pictures_method import pictures_site
from toy_method import toy_site

# One folder each for all tests: Python keeps a package from where it was first imported.
__all__ = ["pictures_site", "toy_site"]

# A plugin that fails must fail its tests.
os.environ.setdefault("ZOO_STRICT", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", help="run the golden cases below DIR instead of tests/golden")
    parser.addoption("--update-docs", action="store_true", help="write what the code says into the documents")
