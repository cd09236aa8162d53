"""A text in pieces, each with the entities that it is part of. What a screen would obey instead of showing it (control
and bidirectional characters) is a piece of its own, with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from workers.printable import is_legible

__all__ = ["text_pieces"]

_DIRECTIONS: Final = frozenset("\u200e\u200f\u061c")
"""Marks of direction are harmless beyond their word, but invisible: who looks for a wrong offset wants to see them."""
_DEEPEST: Final = 8
"""Spans inside each other that are marked; of a text that is all marks a browser would be sent megabytes."""
_SHORT: Final = {"\x00": "NUL", "\x1b": "ESC", "\r": "CR", "\x07": "BEL", "\x08": "BS", "\x7f": "DEL"}


def text_pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[list[Any]]:
    """``[text, spans, name]``, one behind the other.

    ``spans`` (positions in the argument) are those that the piece is inside of, longest first, at most eight. ``name``
    is None, or how a single character is called that cannot be shown; its piece stands for one code point, every other
    one for as many as its text has.
    """
    cuts = sorted({0, len(text), *(edge for span in spans for edge in span if 0 <= edge <= len(text))})
    opening: dict[int, list[int]] = {}
    for number, (start, _) in enumerate(spans):
        opening.setdefault(start, []).append(number)
    inside: list[int] = []
    pieces: list[list[Any]] = []
    for begin, end in pairwise(cuts):
        inside = [number for number in inside if spans[number][1] > begin]
        opened = [number for number in opening.get(begin, ()) if spans[number][1] > begin]
        inside += sorted(opened, key=lambda number: (-spans[number][1], number))[: max(0, _DEEPEST - len(inside))]
        inside.sort(key=lambda number: (spans[number][0], -spans[number][1], number))
        pieces.extend([part, list(inside), name] for part, name in _parts(text[begin:end]))
    return pieces


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    if text.isprintable():
        yield text, None
        return
    plain = 0
    for index, char in enumerate(text):
        if _is_shown(char, text[index + 1 : index + 2]):
            continue
        if index > plain:
            yield text[plain:index], None
        yield "\ufffd", _SHORT.get(char) or f"U+{ord(char):04X}"
        plain = index + 1
    if plain < len(text):
        yield text[plain:], None


def _is_shown(char: str, following: str) -> bool:
    if char == "\r":
        return following == "\n"  # the end of a line in many files
    return char not in _DIRECTIONS and is_legible(char)
