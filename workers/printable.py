"""Text of unknown origin for people: a terminal obeys what is in it, and shows nothing of it.

Escape sequences colour, move and clear; U+009B begins one as well. U+202E and its like turn what follows around. File
names may hold bytes that are no text at all.
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["escaped", "is_legible", "legible"]

_KEPT: Final = frozenset("\n\t\u200c\u200d\u200e\u200f\u061c")
"""Line breaks and tabs; and joiners and marks of direction, without which Persian, Hindi and emoji are not what they
are. They do nothing beyond the word that they are in."""
_HARMLESS: Final = frozenset({"Zs", "Co", "Cn"})
"""Spaces, and characters that only a font or a newer version of Unicode knows."""
_TAGS: Final = range(0xE0020, 0xE0080)
"""Parts of the flags of England and others."""
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BYTES: Final = range(0xDC80, 0xDD00)
"""What Python makes of a byte of a file name that is no UTF-8."""


def is_legible(char: str) -> bool:
    """Whether a terminal or a browser shows it, and does not obey it."""
    if char.isprintable() or char in _KEPT:
        return True
    return ord(char) in _TAGS or unicodedata.category(char) in _HARMLESS


def legible(text: str) -> str:
    """``text`` with U+FFFD for all that a terminal would obey: of the same length, so that offsets stay."""
    return text if text.isprintable() else "".join(char if is_legible(char) else "\ufffd" for char in text)


def escaped(text: str, *, lines: bool = True) -> str:
    """``text`` with ``\\x1b`` and ``\\u202e`` for all that a terminal would obey, so that a name can be recognised.

    ``lines``: line breaks and tabs are left as they are.
    """
    if text.isprintable():
        return text
    return "".join(char if is_legible(char) and (lines or char not in _SHORT) else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
