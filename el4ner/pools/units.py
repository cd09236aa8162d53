"""In which unit an annotation tool counted: code points, as we do, or UTF-16 as browsers do (an emoji is two there)."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from el4ner.errors import PoolError
from el4ner.pools.read_options import Units
from el4ner.text.scripts import is_unspaced

__all__ = ["RawSpan", "agreed_units", "offsets_in", "units_of"]

_READINGS: Final[tuple[Units, ...]] = ("code-points", "utf-16")


@dataclass(frozen=True, slots=True)
class RawSpan:
    """A span as a file has it, in whatever unit. ``surface``: what the file says is there, if it does."""

    start: int
    end: int
    label: str
    surface: str | None = None


def offsets_in(text: str, span: RawSpan, units: Units) -> tuple[int, int]:
    """Start and end in code points.

    Raises:
        PoolError: outside the text, empty, or in the middle of a character.
    """
    places = _astral_places(text)
    length = len(text) if units != "utf-16" else len(text) + len(places)
    if not 0 <= span.start < span.end <= length:
        raise PoolError(f"span {span.start}–{span.end} is not inside the text, which has {length} characters")
    if units != "utf-16" or not places:
        return span.start, span.end
    start, end = (_code_point(places, offset) for offset in (span.start, span.end))
    if start is None or end is None:
        raise PoolError(f"span {span.start}–{span.end}, counted in UTF-16, begins or ends in the middle of an emoji")
    return start, end


def _code_point(places: Sequence[int], offset: int) -> int | None:
    """An offset in UTF-16 as one in code points; None in the middle of a character."""
    before = bisect_left(places, offset)
    return None if before and places[before - 1] == offset - 1 else offset - before


def units_of(text: str, spans: Sequence[RawSpan]) -> Units | None:
    """The unit in which these spans make sense; ``auto`` where both say the same, None where it cannot be told.

    A unit makes sense when every span is inside the text, is what the file says it is (to the letter, if by one of the
    units it is), and cuts no word.
    """
    if not _astral_places(text):
        return "auto"
    read = {units: _read(text, spans, units) for units in _READINGS}
    possible = {units: places for units, places in read.items() if places is not None}
    if len({tuple(places) for places in possible.values()}) <= 1 and len(possible) == len(_READINGS):
        return "auto"
    exact = [units for units, places in possible.items() if _are_surfaces(text, spans, places)]
    if len(exact) == 1:
        return exact[0]
    sensible = [units for units, places in possible.items() if all(_whole(text, *place) for place in places)]
    if len(sensible) == 1:
        return sensible[0]
    return next(iter(possible)) if len(possible) == 1 else None


def agreed_units(votes: Sequence[Units | None]) -> Units | None:
    """The unit of those records of a file that leave no doubt; None where there are none, or they differ."""
    clear = {units for units in votes if units not in (None, "auto")}
    return clear.pop() if len(clear) == 1 else None


def _read(text: str, spans: Sequence[RawSpan], units: Units) -> list[tuple[int, int]] | None:
    places = []
    for span in spans:
        try:
            start, end = offsets_in(text, span, units)
        except PoolError:
            return None
        if span.surface is not None and not same_surface(text[start:end], span.surface):
            return None
        places.append((start, end))
    return places


def _are_surfaces(text: str, spans: Sequence[RawSpan], places: Sequence[tuple[int, int]]) -> bool:
    return all(span.surface in (None, text[start:end]) for span, (start, end) in zip(spans, places, strict=True))


def same_surface(left: str, right: str) -> bool:
    """Whether two surfaces differ in white space at most: browsers show line breaks as spaces, or write ``\\\\n``."""
    return _spaced(left) == _spaced(right)


def _spaced(surface: str) -> str:
    return re.sub(r"(?:\s|\\n)+", " ", surface).strip()


@lru_cache(maxsize=1)
def _astral_places(text: str) -> tuple[int, ...]:
    """The offsets, in UTF-16, of the characters that are two there. Kept for the text's next span: a long text with
    many spans is looked through once."""
    found = (index for index, char in enumerate(text) if char > "\uffff")
    return tuple(index + before for before, index in enumerate(found))


def _whole(text: str, start: int, end: int) -> bool:
    """Whether no word is cut at either end, and no white space is included."""
    if text[start].isspace() or text[end - 1].isspace():
        return False
    return not any(_inside_word(text, place) for place in (start, end))


def _inside_word(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if unicodedata.category(after).startswith("M"):
        return True
    return before.isalnum() and after.isalnum() and not (is_unspaced(before) or is_unspaced(after))
