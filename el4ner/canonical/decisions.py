"""What people decided: that two names are one entity, or that a name is an entity of its own.

A decision is about one name. Of several about a name the latest counts; of two at the same moment the one with the
greater id. So any order of learning them leads to the same, and learning one twice changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from el4ner.canonical.names import entity_id

__all__ = ["EntityDecision", "EntityDecisions"]

DecisionAction = Literal["merge", "split"]


@dataclass(frozen=True, slots=True)
class EntityDecision:
    """``merge``: the entity of ``name`` is the one of ``into`` from now on. ``split``: it is its own (``into`` None).

    Both are names of one type, so nothing can be merged across types. ``at_ms``: when it was decided. ``id``: its own.
    """

    id: str
    at_ms: int
    action: DecisionAction
    type: str
    name: str
    into: str | None = None
    by: str = ""

    def __post_init__(self) -> None:
        if (self.action == "merge") is not (self.into is not None) or self.into == self.name:
            raise ValueError("a merge goes into another name, and a split into none")

    @property
    def entity(self) -> str:
        """The id of the name that it is about."""
        return entity_id(self.type, self.name)

    @property
    def target(self) -> str | None:
        """The id of the name that it is merged into."""
        return None if self.into is None else entity_id(self.type, self.into)

    @property
    def rank(self) -> tuple[int, str]:
        """The greatest counts."""
        return self.at_ms, self.id


class EntityDecisions:
    """All decisions, and which of them are in force."""

    def __init__(self) -> None:
        self._all: dict[str, EntityDecision] = {}
        self._of: dict[str, dict[str, EntityDecision]] = defaultdict(dict)
        self._into: dict[str, dict[str, EntityDecision]] = defaultdict(dict)
        self._names: dict[str, tuple[str, str]] = {}

    @classmethod
    def of(cls, decisions: Iterable[EntityDecision]) -> EntityDecisions:
        """With these taken in."""
        made = cls()
        for decision in decisions:
            made.add(decision)
        return made

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[EntityDecision]:
        """In the order in which they were decided."""
        return iter(sorted(self._all.values(), key=lambda decision: decision.rank))

    def add(self, decision: EntityDecision) -> bool:
        """Take it in; whether it was new."""
        if decision.id in self._all:
            return False
        self._all[decision.id] = decision
        self._of[decision.entity][decision.id] = decision
        if decision.target is not None:
            self._into[decision.target][decision.id] = decision
        for name in (decision.name, decision.into):
            if name is not None:
                self._names[entity_id(decision.type, name)] = (decision.type, name)
        return True

    def of_id(self, decision: str) -> EntityDecision | None:
        """The one of an id of its own; None: it is not known."""
        return self._all.get(decision)

    def all_about(self, entity: str) -> Collection[EntityDecision]:
        """Those about a name, by its id, in any order."""
        return self._of.get(entity, {}).values()

    def all_into(self, entity: str) -> Collection[EntityDecision]:
        """Those that ever merged another name into this one, by its id, in any order."""
        return self._into.get(entity, {}).values()

    def about(self, entity: str) -> EntityDecision | None:
        """The one in force about a name, by its id."""
        decisions = self._of.get(entity)
        return max(decisions.values(), key=lambda decision: decision.rank) if decisions else None

    def name(self, entity: str) -> tuple[str, str] | None:
        """Type and name behind an id, where a decision says."""
        return self._names.get(entity)
