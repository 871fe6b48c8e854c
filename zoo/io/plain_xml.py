"""XML from files of unknown origin, without entities, and text that XML can hold."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from zoo.errors import InvalidInput

# XML 1.0 has no other control characters, no halves of surrogate pairs and not the last two of the plane.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return `text` with a replacement character for everything that XML and UTF-16 cannot hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def parse_xml(data: bytes, what: str) -> ElementTree.Element:
    """Return the root of the UTF-8 document `data`; `what` names it in errors.

    Raises InvalidInput when it is not well formed, is not UTF-8, or has a document type: its entities can
    grow a short file to gigabytes, and no format that is read here needs one.
    """
    try:
        # Decoded here, so that the parser cannot be told of another encoding than the one that is searched.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8 text: {error.reason}", hint="It may be damaged.") from error
    if "<!DOCTYPE" in text:
        raise InvalidInput(
            f"{what} declares a document type, expected plain XML", hint="Write the file again without one."
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InvalidInput(f"{what} is not well-formed XML: {error}", hint="It may be damaged.") from error
