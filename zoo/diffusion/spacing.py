"""Which times a sampler visits: from the start of a schedule to clean data in a number of steps."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from zoo.diffusion.schedules import EDMSchedule, Schedule, TableSchedule, log_ratio
from zoo.errors import InvalidInput

#: The rules by which `times` spreads its points.
Spacing = Literal["auto", "respaced", "trailing", "leading", "linspace", "karras", "logsnr"]

_TABLE_RULES = ("respaced", "trailing", "leading")


def times(
    schedule: Schedule, steps: int, spacing: Spacing = "auto", rho: float = 7.0, offset: int = 0
) -> tuple[float, ...]:
    """`steps` times that fall from noise, and 0 at the end: steps + 1 numbers.

    auto: "respaced" for a table, "karras" for EDM, else "linspace".
    respaced, trailing, leading: entries of a table; see the functions of these names.
    linspace: even in time. On a table the entries nearest to an even division of 1 .. n, both included.
    karras: even in (sigma / alpha)^(1 / rho) from `start` to `finest`, then 0 (arXiv 2206.00364, eq. 5).
    logsnr: even in log(alpha / sigma) from `start` to `finest`, then 0 (arXiv 2206.00927).

    offset: entries by which "leading" starts and ends noisier; the other rules have no place for it.

    Raises `InvalidInput` for fewer than one step, more steps than a table has entries, or a rule that the
    schedule has no place for.
    """
    if steps < 1:
        raise InvalidInput(f"steps is {steps}, expected at least 1")
    rule = _own_rule(schedule) if spacing == "auto" else spacing
    if offset < 0 or (offset and rule != "leading"):
        raise InvalidInput(f"offset is {offset}, expected 0, or a positive number where spacing is 'leading'")
    if rule in ("karras", "logsnr"):
        return _by_noise(schedule, steps, rule, rho)
    if isinstance(schedule, TableSchedule):
        return tuple(float(index) for index in _entries(schedule.steps, steps, rule, offset))
    if rule in _TABLE_RULES:
        others = [name for name in get_args(Spacing) if name not in _TABLE_RULES]
        raise InvalidInput(
            f"spacing '{rule}' picks entries of a table, and this model's schedule is continuous",
            f"Use one of: {', '.join(others)}",
        )
    return tuple(schedule.start * (steps - k) / steps for k in range(steps + 1))


def respaced(length: int, steps: int) -> list[int]:
    """round(k (length + 1) / (steps + 1)) for k = steps .. 0: MDM's rule (arXiv 2310.15111, its code).

    Halves go to the even neighbour. All of length .. 0 where steps is length, else the first lies below.
    """
    ratio = (length + 1) / (steps + 1)
    return [round(k * ratio) for k in range(steps, -1, -1)]


def trailing(length: int, steps: int) -> list[int]:
    """round(length (1 - k / steps)): starts at the noisiest entry (arXiv 2305.08891, table 2)."""
    return [round(length * (1.0 - k / steps)) for k in range(steps)] + [0]


def leading(length: int, steps: int, offset: int = 0) -> list[int]:
    """1 + offset + k floor(length / steps), falling (arXiv 2010.02502's code).

    Ends at the cleanest entry, or with Stable Diffusion's offset of 1 at the one above it. Raises
    `InvalidInput` where the offset leaves too few entries.
    """
    stride = length // steps
    first = 1 + offset + (steps - 1) * stride
    if first > length:
        raise InvalidInput(
            f"{steps} steps that start {offset} above the cleanest of {length} noise levels end above the "
            f"noisiest",
            "Take fewer steps.",
        )
    return [1 + offset + k * stride for k in reversed(range(steps))] + [0]


def linspaced(length: int, steps: int) -> list[int]:
    """Even from the noisiest entry to the cleanest, both included (arXiv 2102.09672)."""
    if steps == 1:
        return [length, 0]
    return [1 + round((length - 1) * k / (steps - 1)) for k in reversed(range(steps))] + [0]


def _entries(length: int, steps: int, rule: Spacing, offset: int) -> list[int]:
    if steps > length:
        raise InvalidInput(f"steps is {steps}, and this model has {length} noise levels")
    if rule == "leading":
        return leading(length, steps, offset)
    return {"respaced": respaced, "trailing": trailing, "linspace": linspaced}[rule](length, steps)


def _own_rule(schedule: Schedule) -> Spacing:
    if isinstance(schedule, TableSchedule):
        return "respaced"
    return "karras" if isinstance(schedule, EDMSchedule) else "linspace"


def _by_noise(schedule: Schedule, steps: int, rule: Spacing, rho: float) -> tuple[float, ...]:
    ends = torch.tensor([schedule.start, schedule.finest], dtype=torch.float64, device="cpu")
    first, last = log_ratio(schedule, ends).tolist()
    if first == -float("inf"):
        raise InvalidInput(
            f"spacing '{rule}' divides signal-to-noise ratios, and this model starts without any signal",
            "Use --option spacing=linspace.",
        )
    even = torch.linspace(0.0, 1.0, steps, dtype=torch.float64, device="cpu")
    if rule == "logsnr":
        ratios = first + even * (last - first)
    else:
        high, low = torch.exp(-ends.new_tensor([first, last]) / rho).tolist()
        ratios = -rho * torch.log(high + even * (low - high))
    found = schedule.time_at(ratios).tolist()
    # The way there and back through logarithms may leave the start by a rounding error.
    return (schedule.start, *found[1:], 0.0)
