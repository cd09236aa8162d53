"""Where each gold entity went, and what was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from el4ner.evaluation.sentence_records import Fate, Labelled, SentenceRecord
from el4ner.pools.pool import Pool
from el4ner.types import NONE_TYPE

__all__ = ["OUTCOMES", "Confusion", "Losses", "Outcome", "confusion", "losses", "outcome_of"]

Outcome = Literal["found", "extraction", "none", "type", "validation", "overlap", "confidence"]
"""Of a gold entity, in the order of the stages: in the result; its boundaries were no candidate; classified as no
entity; classified as another type; typed right, but a hard verdict dropped it; … an entity that overlaps it won; … its
confidence was below ``method.min_confidence``."""
OUTCOMES: Final[tuple[Outcome, ...]] = (
    "found", "extraction", "none", "type", "validation", "overlap", "confidence",
)  # fmt: skip
_BY_FATE: Final[dict[Fate, Outcome]] = {
    "kept": "found", "rejected": "validation", "overlapped": "overlap", "unsure": "confidence", "none": "none",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Losses:
    """``outcomes`` has every outcome and adds up to ``gold``.

    ``not_shown`` is how many of the entities that classification lost (``none`` and ``type``) had no demonstration with
    their own type beside them, so that retrieval had a share in it; None where no prompt shows any, or the pool is not
    known.
    """

    gold: int
    outcomes: dict[Outcome, int]
    not_shown: int | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """``counts[i][j]``: entities of the gold type ``labels[i]`` whose boundaries were reported as ``labels[j]``.

    The last label is ``none``: as a row, reported boundaries that are no gold entity's; as a column, gold entities
    whose boundaries were not reported.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def outcome_of(record: SentenceRecord, entity: Labelled) -> Outcome:
    """What became of one gold entity of ``record``."""
    start, end, label = entity
    same = [each for each in record.candidates if (each.start, each.end) == (start, end)]
    if not same:
        return "extraction"
    typed = next((each for each in same if each.type == label), same[0])
    if typed.type == label:
        return _BY_FATE[typed.fate]
    return "none" if typed.type == NONE_TYPE else "type"


def losses(records: Sequence[SentenceRecord], pool: Pool | None = None) -> tuple[Losses, dict[str, Losses]]:
    """Of all gold entities together, and by gold type.

    Args:
        records: of a run.
        pool: the one whose sentences the records' demonstrations are.
    """
    shown = None
    if pool is not None and any(record.demonstrations for record in records):
        shown = [frozenset(label for _, label in sentence.spans) for sentence in pool.sentences]
    outcomes: dict[str, Counter[Outcome]] = {}
    missing: Counter[str] = Counter()
    for record in records:
        for entity in record.gold:
            outcome = outcome_of(record, entity)
            outcomes.setdefault(entity[2], Counter())[outcome] += 1
            if shown is not None and outcome in ("none", "type") and not _was_shown(record, entity, shown):
                missing[entity[2]] += 1

    def row(counts: Counter[Outcome], not_shown: int) -> Losses:
        every = {outcome: counts[outcome] for outcome in OUTCOMES}
        return Losses(counts.total(), every, not_shown if shown is not None else None)

    together = row(sum(outcomes.values(), Counter()), missing.total())
    return together, {label: row(counts, missing[label]) for label, counts in sorted(outcomes.items())}


def confusion(records: Sequence[SentenceRecord], types: Sequence[str] = ()) -> Confusion:
    """Gold type by reported type, over spans with the same boundaries; see :class:`Confusion`.

    ``types`` are shown even where nothing is of them.
    """
    cells: Counter[tuple[str, str]] = Counter()
    for record in records:
        gold = {(start, end): label for start, end, label in record.gold}
        predicted = {(start, end): label for start, end, label in record.predicted}
        cells.update((label, predicted.get(span, NONE_TYPE)) for span, label in gold.items())
        cells.update((NONE_TYPE, label) for span, label in predicted.items() if span not in gold)
    labels = (*sorted({*types, *(label for cell in cells for label in cell)} - {NONE_TYPE}), NONE_TYPE)
    return Confusion(labels, tuple(tuple(cells[row, column] for column in labels) for row in labels))


def _was_shown(record: SentenceRecord, entity: Labelled, shown: Sequence[frozenset[str]]) -> bool:
    start, end, label = entity
    return any(
        label in shown[index]
        for piece in record.pieces
        if piece.start <= start and end <= piece.end
        for index in piece.demonstrations
        if index < len(shown)
    )
