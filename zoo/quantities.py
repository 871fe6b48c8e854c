"""Sizes and counts for people to read."""

from __future__ import annotations


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def human_count(count: int) -> str:
    """463481856 -> "463.5 M"; counts below a thousand as they are."""
    if abs(count) < 1000:
        return str(count)
    value = float(count)
    for unit in ("K", "M", "G", "T"):
        value /= 1000
        # 999.95 and more would be printed as 1000.0.
        if abs(value) < 999.95 or unit == "T":
            break
    return f"{value:.1f} {unit}"
