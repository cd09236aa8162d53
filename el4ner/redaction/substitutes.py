"""What is written in the place of the names of one document: pseudonyms, masks, or surrogates that fit their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from el4ner.redaction.key_ring import RedactionKey
from el4ner.redaction.redaction_settings import Action, RedactionRule
from el4ner.redaction.surfaces import SearchedText
from el4ner.redaction.surrogate_fit import NamePart, fitted, name_part
from el4ner.redaction.surrogates import Surrogate, SurrogateMaker, surrogate_kind

__all__ = ["RemovedName", "Substitutes"]

_MOST_PASSED_OVER: Final = 16
"""Of a name for which so many surrogates clash with its document, the pseudonym is written."""


@dataclass(frozen=True, slots=True)
class RemovedName:
    """What was detected: its type, its name as it is compared, as what it was detected, and what becomes of it."""

    type: str
    identity: str
    names: frozenset[str]
    rule: RedactionRule


class Substitutes:
    """Of one document.

    Args:
        original: its text.
        key: None: there are masks alone.
        surrogates: None: there are none.
        taken: letters of what is removed. No surrogate has them as a word of its own.
    """

    def __init__(
        self,
        original: SearchedText,
        names: Sequence[RemovedName],
        *,
        key: RedactionKey | None,
        digits: int,
        surrogates: SurrogateMaker | None,
        taken: Set[str],
    ) -> None:
        self._original = original
        self._names = names
        self._key = key
        self._digits = digits
        self._maker = surrogates
        self._taken = taken
        self._parts: dict[tuple[int, str], NamePart] = {}
        self._passed_over = [0] * len(names)
        self._surrogates = [self._surrogate(number) for number in range(len(names))]

    @property
    def has_surrogates(self) -> bool:
        """Whether there is still anything made up."""
        return any(surrogate is not None for surrogate in self._surrogates)

    def is_surrogate(self, number: int) -> bool:
        """Whether a made-up value is written for the name of that number."""
        return self._surrogates[number] is not None

    def pass_over(self, numbers: Iterable[int]) -> None:
        """Draw the next surrogates for the names of these numbers; in the end their pseudonyms are written."""
        for number in set(numbers):
            self._passed_over[number] += 1
            self._surrogates[number] = self._surrogate(number)

    def without_surrogates(self) -> None:
        """Write pseudonyms for all that surrogates were to be written for."""
        self._surrogates = [None] * len(self._names)

    def write(self, number: int, start: int, end: int) -> tuple[str, Action]:
        """What is written for the name of that number in the place of ``original.text[start:end]``."""
        name = self._names[number]
        if (surrogate := self._surrogates[number]) is not None:
            piece = self._original.text[start:end]
            if (part := self._parts.get((number, piece))) is None:
                part = name_part(piece, name.names) if surrogate_kind(name.type) == "person" else "full"
                self._parts[number, piece] = part
            in_address = self._original.is_in_an_address(start, end)
            return fitted(surrogate, part, piece, in_address=in_address), "surrogate"
        kind = "".join("_" if letter in "[]:" or not letter.isprintable() else letter for letter in name.type)
        if name.rule.action == "mask" or self._key is None:
            return f"[{kind}]", "mask"
        return f"[{kind}:{self._key.pseudonym(name.type, name.identity, self._digits)}]", "pseudonym"

    def _surrogate(self, number: int) -> Surrogate | None:
        name = self._names[number]
        if name.rule.action != "surrogate" or self._maker is None:
            return None
        while self._passed_over[number] < _MOST_PASSED_OVER:
            surrogate = self._maker.draw(name.type, name.identity, self._passed_over[number])
            if surrogate is None or not surrogate.words & self._taken:
                return surrogate
            self._passed_over[number] += 1
        return None
