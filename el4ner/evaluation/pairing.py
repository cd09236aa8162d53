"""Two runs side by side: only those over the same sentences, with the same gold standard, can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from el4ner.evaluation.sentence_records import EvaluationError, Labelled, SentenceRecord

__all__ = ["LabelledText", "check_same_sentences", "paired"]

LabelledText = tuple[str, Sequence[Labelled]]
"""A text and its gold entities."""


def paired(
    this: Sequence[SentenceRecord], other: Sequence[SentenceRecord]
) -> tuple[list[SentenceRecord], list[SentenceRecord]]:
    """Both runs' records in one order, sentence beside sentence; files may hold them in any order.

    Raises:
        EvaluationError: a sentence is only in one of them, or its gold standard differs.
    """
    check_same_sentences(*([(record.text, record.gold) for record in records] for records in (this, other)))
    mine, theirs = (sorted(records, key=lambda record: _key((record.text, record.gold))) for records in (this, other))
    return mine, theirs


def check_same_sentences(this: Sequence[LabelledText], other: Sequence[LabelledText]) -> None:
    """Both have the same texts with the same entities, in any order.

    Raises:
        EvaluationError: they do not, and what differs.
    """
    ours, theirs = (sorted(map(_key, sentences)) for sentences in (this, other))
    if ours == theirs:
        return
    if [text for text, _ in ours] == [text for text, _ in theirs]:
        text = next(mine[0] for mine, its in zip(ours, theirs, strict=True) if mine != its)
        raise EvaluationError(f"the gold standards differ, for one at {text[:60]!r}: run both on the same data")
    shared = (Counter(text for text, _ in ours) & Counter(text for text, _ in theirs)).total()
    raise EvaluationError(
        f"the runs are over different sentences ({len(ours)} here, {len(theirs)} there, {shared} in both): "
        "give both the same data set, --split, --limit and --seed"
    )


def _key(sentence: LabelledText) -> tuple[str, list[Labelled]]:
    text, gold = sentence
    return text, sorted(gold)
