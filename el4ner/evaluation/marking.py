"""Sentences as they are shown in a report: what was right, wrong and missed, marked in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from el4ner.evaluation.analysis import Outcome, outcome_of
from el4ner.evaluation.scoring import tally
from el4ner.evaluation.sentence_records import SentenceRecord

__all__ = ["LOST", "Mark", "Segment", "Shown", "segments", "shown", "worst"]

LOST: Final[dict[Outcome, str]] = {
    "found": "found",
    "extraction": "no candidate",
    "none": "called none",
    "type": "wrong type",
    "validation": "rejected",
    "overlap": "lost to an overlap",
    "confidence": "too unsure",
}
"""An outcome in a word or two."""

# Characters that would not be seen, or would turn the text around them: shown as what they are.
_VISIBLE: Final = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(
        (*range(0x80, 0xA0), *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD
    ),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A span to mark: code points, half-open. ``note`` says what is wrong with it, "" where nothing is."""

    start: int
    end: int
    type: str
    state: Literal["right", "missed", "wrong"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text, the innermost mark around it, and the marks that end with it."""

    text: str
    inside: Mark | None
    ends: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A sentence twice: with its gold entities, and with the predicted ones."""

    number: int
    """Position in the run, from 1."""
    errors: int
    gold: tuple[Segment, ...]
    predicted: tuple[Segment, ...]


def worst(records: Sequence[SentenceRecord], most: int = 20) -> list[Shown]:
    """The sentences with the most errors (missed and wrongly reported entities), the worst first; none without any."""
    counted = []
    for number, record in enumerate(records, start=1):
        counts = tally(record.gold, record.predicted)
        errors = counts.predicted + counts.gold - 2 * counts.correct
        if errors:
            counted.append((-errors, number, record))
    return [shown(record, number) for _, number, record in sorted(counted, key=lambda each: each[:2])[:most]]


def shown(record: SentenceRecord, number: int) -> Shown:
    """One sentence with its marks."""
    predicted = set(record.predicted)
    gold = [
        Mark(*entity, "right") if entity in predicted else Mark(*entity, "missed", LOST[outcome_of(record, entity)])
        for entity in record.gold
    ]
    marks = [
        Mark(*entity, "right") if entity in set(record.gold) else Mark(*entity, "wrong", _what_is_wrong(entity, record))
        for entity in record.predicted
    ]
    counts = tally(record.gold, record.predicted)
    return Shown(
        number,
        counts.predicted + counts.gold - 2 * counts.correct,
        segments(record.text, gold),
        segments(record.text, marks),
    )


def segments(text: str, marks: Iterable[Mark]) -> tuple[Segment, ...]:
    """``text`` cut wherever a mark begins or ends; marks may lie in one another, and even cross."""
    known = sorted((mark for mark in marks if mark.start < mark.end), key=lambda mark: (mark.start, -mark.end))
    cuts = sorted({0, len(text), *(mark.start for mark in known), *(mark.end for mark in known)})
    pieces = []
    for start, end in pairwise(cuts):
        around = [mark for mark in known if mark.start <= start and end <= mark.end]
        pieces.append(
            Segment(
                text[start:end].translate(_VISIBLE),
                around[-1] if around else None,
                tuple(mark for mark in reversed(around) if mark.end == end),
            )
        )
    return tuple(pieces)


def _what_is_wrong(entity: tuple[int, int, str], record: SentenceRecord) -> str:
    start, end, _ = entity
    for gold_start, gold_end, label in record.gold:
        if (start, end) == (gold_start, gold_end):
            return f"is {label}"
    if any(start < gold_end and gold_start < end for gold_start, gold_end, _ in record.gold):
        return "wrong boundaries"
    return "no entity"
