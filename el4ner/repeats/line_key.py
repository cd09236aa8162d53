"""What lines with spans in them are remembered by."""

from __future__ import annotations

from typing import Any, Protocol

from typing_extensions import override

__all__ = ["LineKey", "SaidOfText"]


class SaidOfText(Protocol):
    """What is said of the spans of many texts of one form, told apart for one text only when that is needed."""

    def said_of(self, text: str) -> tuple[Any, ...]:
        """As :class:`LineKey` has it."""


class LineKey:
    """The key of a text or of a template, together with what is said about it: its spans, by anchors, and more.

    A dictionary finds it by the line alone, whose hash a string keeps. ``said`` may be told later, since it is compared
    only with that of an equal line.
    """

    __slots__ = ("_said", "line")

    def __init__(self, line: str, said: tuple[Any, ...] | SaidOfText) -> None:
        self.line = line
        self._said = said

    @property
    def said(self) -> tuple[Any, ...]:
        """All but the line."""
        said = self._said
        return said if isinstance(said, tuple) else said.said_of(self.line)

    @override
    def __hash__(self) -> int:
        return hash(self.line)

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LineKey):
            return NotImplemented
        return self.line == other.line and (self._said is other._said or self.said == other.said)

    @override
    def __repr__(self) -> str:
        # Other processes know the key by this.
        return repr((self.line, *self.said))
