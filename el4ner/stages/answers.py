"""Reading what a model wrote, where it was free to write anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["parse_spans", "parse_typed_lines", "type_from_text"]

_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s*")
_NOTHING = frozenset({"", "none", "no entities", "n/a", "(none)"})


def parse_spans(text: str) -> list[str]:
    """Surfaces from a list with one span a line; a line such as ``none`` lists nothing. Each surface once."""
    lines = (_BULLET.sub("", line).strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line.lower() not in _NOTHING))


def parse_typed_lines(text: str, types: Iterable[str]) -> dict[str, str]:
    """``surface: type`` lines as a mapping; lines whose type is none of ``types`` say nothing. The first line wins."""
    known = {name.lower(): name for name in types}
    labels: dict[str, str] = {}
    for line in text.splitlines():
        surface, colon, label = _BULLET.sub("", line).rpartition(":")
        chosen = type_from_text(label, known)
        if colon and surface.strip() and chosen is not None:
            labels.setdefault(surface.strip(), chosen)
    return labels


def type_from_text(text: str, known: Mapping[str, str]) -> str | None:
    """The type that ``text`` names, or None. ``known`` maps lower-case names to types."""
    return known.get(text.strip().strip(".\"'`*").strip().lower())
