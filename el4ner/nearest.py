"""Which known name somebody may have meant, and how an error says so."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

__all__ = ["choices", "nearest", "nearest_hint", "no_such"]

_MOST_NAMES: Final = 24
_MOST_CHARS: Final = 600
_LONGEST_NAME: Final = 200
"""Likeness costs the product of both lengths; a key of a megabyte is nobody's slip."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, or None where none is like it.

    Case, and what separates words (``topicPrefix``, ``topic-prefix``), make no difference.
    """
    if len(name) > _LONGEST_NAME:
        return None
    plain: dict[str, str] = {}
    for candidate in known:
        plain.setdefault(_plain(candidate), candidate)
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """``; nearest: 'LIKE IT'``, for the middle of an error; nothing where none is like it."""
    like = nearest(name, known)
    return "" if like is None else f"; nearest: {like!r}"


def choices(known: Iterable[str]) -> str:
    """The names in their order with commas; of a long list its beginning, and how many more there are."""
    names = list(known)
    shown: list[str] = []
    for name in names[:_MOST_NAMES]:
        if shown and len(", ".join([*shown, name])) > _MOST_CHARS:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {rest} more" if rest else "")


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """``there is no KIND 'NAME'; nearest: 'LIKE IT'; there are: A, B, C``, for the end of an error."""
    names = list(known)
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return f"there is no {kind} {shown!r}{nearest_hint(name, names)}; there are: {choices(names)}"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower()) or name
