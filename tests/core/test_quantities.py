"""Sizes and counts in words."""

import pytest

from zoo.quantities import human_bytes, human_count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**30, "1.0 GiB"),
        (2**42, "4096.0 GiB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 K"),
        (463481856, "463.5 M"),
        (999_999, "1.0 M"),
        (10**9, "1.0 G"),
        (10**16, "10000.0 T"),
    ],
)
def test_counts(count, text):
    assert human_count(count) == text
