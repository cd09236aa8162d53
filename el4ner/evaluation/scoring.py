"""Strict entity-level scores by nervaluate: an entity is right when both boundaries and the type are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nervaluate.entities import Entity as NervaluateEntity
from nervaluate.strategies import ExactEvaluation, StrictEvaluation

__all__ = ["Scores", "TypeScores", "score"]

Labelled = tuple[int, int, str]
"""Start, end (code points, half-open), type."""


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
    """Compare sentence by sentence; micro averages over all entities."""
    labels = sorted({*types, *(label for sentence in gold for *_, label in sentence)})
    strict, spans = StrictEvaluation(), ExactEvaluation()
    totals = {name: _Counts() for name in ("strict", "spans", *(f"type:{label}" for label in labels))}
    for right, said in zip(gold, predicted, strict=True):
        totals["strict"].add(strict, right, said, labels)
        totals["spans"].add(spans, right, said, labels)
        for label in {entity[2] for entity in (*right, *said)}:
            totals[f"type:{label}"].add(
                strict, [e for e in right if e[2] == label], [e for e in said if e[2] == label], labels
            )
    return Scores(
        strict=totals["strict"].scores(),
        spans=totals["spans"].scores(),
        per_type={label: totals[f"type:{label}"].scores() for label in labels},
    )


class _Counts:
    def __init__(self) -> None:
        self.correct = self.possible = self.actual = 0

    def add(self, strategy: Any, gold: Sequence[Labelled], said: Sequence[Labelled], labels: list[str]) -> None:
        result, _ = strategy.evaluate(_entities(gold), _entities(said), labels)
        self.correct += result.correct
        self.possible += len(gold)
        self.actual += len(said)

    def scores(self) -> TypeScores:
        precision = self.correct / self.actual if self.actual else 0.0
        recall = self.correct / self.possible if self.possible else 0.0
        total = precision + recall
        return TypeScores(precision, recall, 2 * precision * recall / total if total else 0.0, self.possible)


def _entities(labelled: Sequence[Labelled]) -> list[NervaluateEntity]:
    return [NervaluateEntity(label, start, end) for start, end, label in labelled]
