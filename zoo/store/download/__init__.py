"""Bringing the bytes of a file here: parts that survive, ranges side by side, tries and pauses."""
