"""Which names are one entity: by decisions, and by short forms that have one long form in all documents.

Each name points at no other one, or at one. It is the entity at the end of that way. In a ring the pointer that counts
least (the oldest decision, and any short form before) does not hold. So the joins are a function of what is known, and
not of the order in which it was learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from el4ner.canonical.decisions import EntityDecisions

__all__ = ["NameJoins"]

Rank = tuple[int, str]
_BY_SHORT_FORM = (-1, "")


class NameJoins:
    """The joins of names.

    Args:
        decisions: of people.
        name_of: type and name behind an id; None: it is not known.
        unique: whether a short form joins the one long form that it has in all documents. It does so only if it stands
            for that one more often than for itself: one document about Paris, Texas does not move all of Paris there.
    """

    def __init__(
        self, decisions: EntityDecisions, name_of: Callable[[str], tuple[str, str] | None], *, unique: bool
    ) -> None:
        self._decisions = decisions
        self._name_of = name_of
        self._unique = unique
        self._written: dict[tuple[str, str], dict[str, int]] = {}
        """How often a form of a type stands for which name, by the name's id; the name that it is itself among them."""

    def set_written(self, kind: str, form: str, name: str, count: int) -> None:
        """In all documents ``form`` stands so often for a name (its id)."""
        key = (kind, form)
        if count > 0:
            self._written.setdefault(key, {})[name] = count
        elif (names := self._written.get(key)) is not None:
            names.pop(name, None)
            if not names:
                del self._written[key]

    def entity(self, name: str) -> str:
        """The id of the entity that a name belongs to, by the name's id."""
        return self._end(name, self._pointer)

    def is_by_decision(self, name: str) -> bool:
        """Whether a name points elsewhere since somebody said so."""
        decision = self._decisions.about(name)
        return decision is not None and decision.target is not None

    def _decided(self, name: str) -> tuple[str, Rank] | None:
        decision = self._decisions.about(name)
        return None if decision is None or decision.target is None else (decision.target, decision.rank)

    def _pointer(self, name: str) -> tuple[str, Rank] | None:
        if self._decisions.about(name) is not None:
            return self._decided(name)
        if not self._unique or (known := self._name_of(name)) is None or known not in self._written:
            return None
        mentions: Counter[str] = Counter()
        for written_for, count in self._written[known].items():
            mentions[self._end(written_for, self._decided)] += count
        own = mentions.pop(name, 0)
        if len(mentions) != 1:
            return None
        ((entity, count),) = mentions.items()
        return (entity, _BY_SHORT_FORM) if count > own else None

    def _end(self, name: str, pointer: Callable[[str], tuple[str, Rank] | None]) -> str:
        way: dict[str, Rank] = {}
        for here, rank in self._steps(name, pointer):
            if here in way:
                ring = list(way)[list(way).index(here) :]
                return min(ring, key=lambda each: (way[each], each))
            if rank is None:
                return here
            way[here] = rank
        raise AssertionError("a way has an end")

    @staticmethod
    def _steps(name: str, pointer: Callable[[str], tuple[str, Rank] | None]) -> Iterator[tuple[str, Rank | None]]:
        while True:
            target = pointer(name)
            yield name, None if target is None else target[1]
            if target is None:
                return
            name = target[0]
