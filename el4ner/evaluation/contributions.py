"""What each proposer and each member of the ensemble added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from el4ner.evaluation.sentence_records import Considered, SentenceRecord
from el4ner.types import NONE_TYPE

__all__ = ["MemberFigures", "Proposer", "Proposers", "members", "proposers"]


@dataclass(frozen=True, slots=True)
class Proposer:
    """``recall`` is the share of gold entities whose boundaries it proposed; ``only`` counts those that nobody else
    proposed; ``per_sentence`` is its candidates, on average.
    """

    recall: float
    only: int
    per_sentence: float


@dataclass(frozen=True, slots=True)
class Proposers:
    """``union`` is of all together; its ``only`` is the number of gold entities that were proposed at all."""

    union: Proposer
    each: dict[str, Proposer]


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """How one member voted.

    Attributes:
        asked: candidates that are gold entities by their boundaries.
        accuracy: share of them for which it voted the gold type; no vote is a wrong one.
        rejected: share of the other candidates for which it voted ``none`` or nothing.
        alone: entities of the result that are right, where it voted right and no other member did.
        overruled: entities that the ensemble typed right, against this member's vote.
    """

    asked: int
    accuracy: float
    rejected: float
    alone: int
    overruled: int


def proposers(records: Sequence[SentenceRecord]) -> Proposers:
    """Candidate recall by whatever names stand in the candidates' ``proposed_by``."""
    sentences, total = max(1, len(records)), max(1, sum(len(record.gold) for record in records))
    proposed: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    only: Counter[str] = Counter()
    every = reached_by_any = 0
    for record in records:
        gold = {(start, end) for start, end, _ in record.gold}
        every += len(record.candidates)
        for candidate in record.candidates:
            names = set(candidate.proposed_by)
            proposed.update(names)
            if (candidate.start, candidate.end) in gold:
                reached_by_any += 1
                reached.update(names)
                if len(names) == 1:
                    only.update(names)
    return Proposers(
        union=Proposer(reached_by_any / total, reached_by_any, every / sentences),
        each={
            name: Proposer(reached[name] / total, only[name], proposed[name] / sentences) for name in sorted(proposed)
        },
    )


def members(records: Sequence[SentenceRecord]) -> dict[str, MemberFigures]:
    """By name; a member is whoever voted at least once."""
    names = sorted({name for record in records for candidate in record.candidates for name in candidate.votes})
    on_gold: list[tuple[Considered, str]] = []
    others: list[Considered] = []
    for record in records:
        gold = {(start, end): label for start, end, label in record.gold}
        for candidate in record.candidates:
            label = gold.get((candidate.start, candidate.end))
            if label is None:
                others.append(candidate)
            else:
                on_gold.append((candidate, label))

    def share(count: int, of: Sequence[object]) -> float:
        return count / len(of) if of else 0.0

    def count(is_so: Callable[[Considered, str], bool]) -> int:
        return sum(is_so(candidate, label) for candidate, label in on_gold)

    def figures(name: str) -> MemberFigures:
        right = count(lambda candidate, label: candidate.votes.get(name) == label)
        refused = sum(candidate.votes.get(name, NONE_TYPE) == NONE_TYPE for candidate in others)
        return MemberFigures(
            asked=len(on_gold),
            accuracy=share(right, on_gold),
            rejected=share(refused, others),
            alone=count(lambda candidate, label: _found(candidate, label) and _right(candidate, label) == [name]),
            overruled=count(
                lambda candidate, label: candidate.type == label and candidate.votes.get(name) not in (label, None)
            ),
        )

    return {name: figures(name) for name in names}


def _found(candidate: Considered, label: str) -> bool:
    return candidate.type == label and candidate.fate == "kept"


def _right(candidate: Considered, label: str) -> list[str]:
    return [name for name, vote in candidate.votes.items() if vote == label]
