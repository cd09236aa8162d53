"""Strict entity-level scores: an entity is right when both boundaries and the type are.

The counts are those of the CoNLL-2003 shared task (Tjong Kim Sang and De Meulder, 2003): what is in both lists is
right. ``nervaluate`` is not asked: it hands a gold entity to the first prediction that overlaps *or touches* it, so
that the exact prediction behind that one finds it taken and counts as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from el4ner.evaluation.sentence_records import Labelled

__all__ = ["Labelled", "Scores", "Tally", "TypeScores", "f1_of", "of_type", "score", "strict_tallies", "tally"]


class Tally(NamedTuple):
    """Entities of one sentence: right ones, predicted ones, gold ones."""

    correct: int
    predicted: int
    gold: int


@dataclass(frozen=True, slots=True)
class TypeScores:
    """Of one type, or of all together (micro). ``support`` is the number of gold entities."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """``strict`` needs the type, ``spans`` only the boundaries; ``per_type`` is strict."""

    strict: TypeScores
    spans: TypeScores
    per_type: dict[str, TypeScores]


def score(gold: Sequence[Sequence[Labelled]], predicted: Sequence[Sequence[Labelled]], types: Sequence[str]) -> Scores:
    """Compare sentence by sentence; micro averages over all entities.

    ``per_type`` has ``types`` and whatever other label the gold standard uses, sorted.

    Raises:
        ValueError: ``gold`` and ``predicted`` are not about as many sentences.
    """
    labels = sorted({*types, *(label for sentence in gold for *_, label in sentence)})
    return Scores(
        strict=_scores(strict_tallies(gold, predicted)),
        spans=_scores([tally(_untyped(g), _untyped(p)) for g, p in zip(gold, predicted, strict=True)]),
        per_type={label: _scores(strict_tallies(of_type(gold, label), of_type(predicted, label))) for label in labels},
    )


def strict_tallies(gold: Sequence[Sequence[Labelled]], predicted: Sequence[Sequence[Labelled]]) -> list[Tally]:
    """One tally a sentence."""
    return [tally(labels, predictions) for labels, predictions in zip(gold, predicted, strict=True)]


def tally(gold: Iterable[Labelled], predicted: Iterable[Labelled]) -> Tally:
    """Compare one sentence; an entity that is predicted twice is right once."""
    wanted, tagged = Counter(gold), Counter(predicted)
    return Tally((wanted & tagged).total(), tagged.total(), wanted.total())


def of_type(sentences: Sequence[Sequence[Labelled]], label: str) -> list[list[Labelled]]:
    """Only the entities of one type, sentence by sentence."""
    return [[entity for entity in sentence if entity[2] == label] for sentence in sentences]


def f1_of(correct: float, predicted: float, gold: float) -> float:
    """The harmonic mean of precision and recall; 0 where there is nothing to find and nothing found."""
    return 2 * correct / (predicted + gold) if predicted + gold else 0.0


def _untyped(entities: Iterable[Labelled]) -> list[Labelled]:
    return [(start, end, "") for start, end, _ in entities]


def _scores(tallies: Iterable[Tally]) -> TypeScores:
    correct, predicted, gold = (sum(column) for column in zip(Tally(0, 0, 0), *tallies, strict=True))
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return TypeScores(precision, recall, f1_of(correct, predicted, gold), gold)
