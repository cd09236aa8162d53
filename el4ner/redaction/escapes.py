"""Escapes in a text, as addresses, markup, mail and programs write them, and what each of them stands for.

A text may be read in several ways: ``=ED`` is a letter in mail and the beginning of ``EDITH`` in an address, ``\\n`` is
a line's end in JSON and the beginning of ``\\nadia`` in a path. Kinds of escapes that words may begin with are read in
some readings and left alone in others; the other kinds are read in all of them.

==========================  ============================================================================================
kind                        escapes
==========================  ============================================================================================
in all readings             ``%C3``, ``%u00FC``, ``\\xc3``, ``\\303``, ``\\u00fc``, ``\\u{fc}``, ``\\U000000fc``,
                            ``&uuml;``, ``&#252;``, ``&#252``
mail, old markup            ``=C3``; ``&uuml`` without its end
control characters          ``\\n``, ``\\r``, ``\\t``
markup                      ``<wbr>``: a gap
==========================  ============================================================================================
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from html.entities import html5
from itertools import product
from typing import Final

__all__ = ["Unit", "may_have_escapes", "readings"]

Unit = tuple[str, int, int]
"""A character, and where it begins and ends in the text (an escape is longer than the character it stands for)."""

_LAYERS: Final = 6
"""An escape may be escaped again: so often."""
_HEX: Final = "[0-9A-Fa-f]"
_EVERYWHERE: Final = (
    rf"(?P<percent>(?:%{_HEX}{{2}})+)"
    rf"|(?P<unicode>(?:[\\%]u{_HEX}{{4}})+)"
    rf"|(?P<hex>(?:\\x{_HEX}{{2}})+)"
    r"|(?P<octal>(?:\\[0-3][0-7]{2})+)"
    rf"|(?P<point>\\[ux]\{{{_HEX}{{1,6}}\}}|\\U{_HEX}{{8}})"
    rf"|(?P<entity>&(?:\#0{{0,32}}[0-9]{{1,7}};?|\#[xX]0{{0,32}}{_HEX}{{1,6}};?|[A-Za-z][A-Za-z0-9]{{1,31}};))"
)
_WITHOUT_END: Final = "|".join(sorted((name for name in html5 if not name.endswith(";")), reverse=True))
_IN_SOME: Final = (
    rf"(?P<quoted>(?:={_HEX}{{2}})+)|(?P<unended>&(?:{_WITHOUT_END});?)",
    r"(?P<control>\\[nrt])",
    r"(?P<markup><[^<>]{0,200}>)",
)
_Kinds = tuple[bool, ...]
"""Which of :data:`_IN_SOME` are read."""
_ALL_KINDS: Final[Sequence[_Kinds]] = list(product((False, True), repeat=len(_IN_SOME)))
_PATTERNS: Final = {
    kinds: re.compile("|".join([*(some for some, read in zip(_IN_SOME, kinds, strict=True) if read), _EVERYWHERE]))
    for kinds in _ALL_KINDS
}
_SOME: Final = tuple(map(re.compile, _IN_SOME))
_OCTETS: Final = {"percent": (3, 2, 16), "quoted": (3, 2, 16), "hex": (4, 2, 16), "octal": (4, 3, 8)}
"""Escapes of octets: how long one is, how many digits it ends with, and their base."""
_CODE_UNIT: Final = 6
"""The length of an escape of two octets."""


def may_have_escapes(text: str) -> bool:
    """Whether there may be more than one reading."""
    return any(mark in text for mark in "%&=\\<")


def readings(units: list[Unit], *, markup: bool = True) -> Iterator[list[Unit]]:
    """Each way in which the text may be read but the one in which it stands: layer by layer.

    ``markup``: whether there are readings without it.
    """
    at: dict[_Kinds, list[Unit]] = {kinds: units for kinds in _ALL_KINDS if markup or not kinds[-1]}
    for _ in range(_LAYERS):
        texts = {id(state): "".join([unit[0] for unit in state]) for state in at.values()}
        some = {state: tuple(bool(pattern.search(text)) for pattern in _SOME) for state, text in texts.items()}
        read: dict[tuple[int, _Kinds], list[Unit]] = {}
        following: dict[_Kinds, list[Unit]] = {}
        for kinds, state in at.items():
            there = tuple(map(all, zip(kinds, some[id(state)], strict=True)))
            if (id(state), there) not in read:
                result = read[id(state), there] = _read(texts[id(state)], state, _PATTERNS[there])
                if result is not state:
                    yield result
            if (result := read[id(state), there]) is not state:
                following[kinds] = result
        if not following:
            return
        at = following


def _read(text: str, units: list[Unit], pattern: re.Pattern[str]) -> list[Unit]:
    """The units with their escapes read; the same list where there are none."""
    read: list[Unit] = []
    last = 0
    for match in pattern.finditer(text):
        if (meant := _meant_by(match)) is None:
            continue
        read += units[last : match.start()]
        start = end = match.start()
        for character, size in meant:
            start, end = (end, end + size) if size else (start, end)
            read.append((character, units[start][1], units[end - 1][2]))
        last = match.end()
    if last == 0:
        return units
    read += units[last:]
    return read


def _meant_by(match: re.Match[str]) -> list[tuple[str, int]] | None:
    """The characters that an escape stands for, and how much of it stands for each; 0: the same as for the one before.
    None: it is no escape."""
    escape, kind = match.group(), match.lastgroup or ""
    if kind in ("control", "markup"):
        return [("\n", len(escape))]
    if kind in _OCTETS:
        width, digits, base = _OCTETS[kind]
        octets = bytes(
            int(escape[place + width - digits : place + width], base) for place in range(0, len(escape), width)
        )
        try:
            return [(character, width * len(character.encode())) for character in octets.decode()]
        except UnicodeDecodeError:
            return [(character, width) for character in octets.decode("latin-1")]
    if kind == "unicode":
        # Two may be the halves of one character.
        halves = b"".join(
            bytes.fromhex(escape[place + 2 : place + _CODE_UNIT]) for place in range(0, len(escape), _CODE_UNIT)
        )
        characters = halves.decode("utf-16-be", "surrogatepass")
        return [(character, _CODE_UNIT * (1 + (ord(character) > 0xFFFF))) for character in characters]
    if kind == "point":
        number = int(escape[2:].strip("{}"), 16)
        return [(chr(number), len(escape))] if number <= 0x10FFFF else None
    entity = html5.get(escape[1:]) if escape[1] != "#" else html.unescape(escape)
    if entity is None:
        return None
    # What stands for two characters is the place of both.
    return [(character, 0 if index else len(escape)) for index, character in enumerate(entity)]
