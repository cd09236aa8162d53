"""Entities marked in their text: in colours on a terminal, in brackets elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from rich.console import Console
from rich.text import Text

from workers.printable import legible

__all__ = ["EntityMark", "bold", "colour_of", "marked", "plainly_marked"]

_FAMILIAR: Final[Mapping[str, str]] = {
    "person": "bright_cyan",
    "user": "bright_cyan",
    "organization": "bright_green",
    "organisation": "bright_green",
    "process": "bright_green",
    "service": "bright_green",
    "location": "bright_yellow",
    "host": "bright_yellow",
    "product": "bright_magenta",
    "file-path": "bright_magenta",
    "event": "orange1",
    "ip-address": "orange1",
    "date": "bright_blue",
    "timestamp": "bright_blue",
    "error-code": "bright_red",
}
_OTHERS: Final = ("cyan", "green", "yellow", "magenta", "blue", "deep_pink2", "turquoise2", "chartreuse3", "gold3")


class EntityMark(NamedTuple):
    """A typed span to show: code points, half-open."""

    start: int
    end: int
    type: str


def bold(console: Console) -> bool:
    """Whether colours can be shown there; else entities are marked with brackets."""
    return console.is_terminal and not console.no_color


def colour_of(label: str) -> str:
    """The colour of an entity type: always the same one."""
    key = label.lower()
    return _FAMILIAR.get(key) or _OTHERS[zlib.crc32(key.encode()) % len(_OTHERS)]


def marked(text: str, marks: Iterable[EntityMark], console: Console) -> Text:
    """``text`` with its entities in colours, each followed by its type; or in brackets where there are no colours."""
    if not bold(console):
        return Text(plainly_marked(text, marks))
    shown = Text()
    open_marks: list[EntityMark] = []
    for piece, opens, closes in _pieces(legible(text), marks):
        for mark in closes:
            open_marks.remove(mark)
            shown.append(f" {mark.type} ", f"italic black on {colour_of(mark.type)}")
        open_marks.extend(opens)
        shown.append(piece, f"bold black on {colour_of(open_marks[-1].type)}" if open_marks else "")
    return shown


def plainly_marked(text: str, marks: Iterable[EntityMark]) -> str:
    """``[Ada Lovelace|person] was born in [London|location].``"""
    return "".join(
        "".join(f"|{mark.type}]" for mark in closes) + "[" * len(opens) + piece
        for piece, opens, closes in _pieces(legible(text), marks)
    )


def _pieces(text: str, marks: Iterable[EntityMark]) -> Iterable[tuple[str, list[EntityMark], list[EntityMark]]]:
    """The text cut wherever a mark begins or ends: each piece, which marks begin with it, which end before it."""
    known = sorted(marks, key=lambda mark: (mark.start, -mark.end))
    cuts = sorted({0, len(text), *(mark.start for mark in known), *(mark.end for mark in known)})
    for cut, following in zip(cuts, [*cuts[1:], len(text)], strict=True):
        opens = [mark for mark in known if mark.start == cut]
        closes = [mark for mark in reversed(known) if mark.end == cut]
        yield text[cut:following], opens, closes
