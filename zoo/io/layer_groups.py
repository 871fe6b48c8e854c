"""Groups of layers in files of other programs, taken apart into plain layers where that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import InvalidInput


@dataclass(frozen=True)
class Group:
    """What the groups around a layer do to it: hide it, fade it, and move it by (x, y) pixels."""

    visible: bool = True
    opacity: float = 1.0
    x: int = 0
    y: int = 0

    def inner(self, name: str, layers: int, visible: bool, opacity: float, x: int = 0, y: int = 0) -> Group:
        """Return the group `name` within this one; `layers` is how many layers it holds in all.

        Raises InvalidInput for a faded group of several layers: it is blended as one picture, and layers that
        overlap would show through each other if each were faded.
        """
        if opacity < 1.0 and layers > 1:
            raise InvalidInput(
                f"group '{name}' fades its {layers} layers together (opacity {opacity:g}), "
                "expected opacity 1 for a group of several layers",
                hint="Merge it into one layer, or set its opacity to 1, in the program that made it.",
            )
        return Group(self.visible and visible, self.opacity * opacity, self.x + x, self.y + y)


def only_normal_blending(name: str, mode: str, normal: bool) -> None:
    """Raise InvalidInput when a layer or group is not simply laid over what is behind it."""
    if not normal:
        raise InvalidInput(
            f"layer '{name}' is blended with '{mode}', expected plain layers over each other",
            hint="Merge it with the layers behind it in the program that made it.",
        )
