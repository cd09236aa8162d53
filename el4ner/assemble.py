"""From the last stage's result to a tagged document: apart from the pipeline, so that who only joins loads no model."""

from __future__ import annotations

from typing import Literal

from el4ner.config import MethodSettings
from el4ner.text.overlaps import OverlapPolicy, resolve_overlaps
from el4ner.types import (
    NONE_TYPE,
    DocumentEntities,
    DocumentTypes,
    Entity,
    TaggedDocument,
    TypedSpan,
    Verdict,
)

__all__ = ["assemble", "assemble_by", "reported"]


def assemble(
    result: DocumentEntities | DocumentTypes,
    *,
    overlaps: OverlapPolicy = "flat",
    validation: Literal["off", "soft", "hard"] = "soft",
    min_confidence: float = 0.0,
) -> TaggedDocument:
    """The final entities of a document: pure, no engine.

    From :class:`DocumentTypes` (validation never answered) the entities come without verdicts. An entity's confidence
    is the ensemble's; a ``soft`` verdict scales it by (1 + p) / 2, where p is the verifier's probability; a ``hard``
    one drops what does not hold.
    """
    entities = []
    for typed, verdict in _judged(result):
        confidence = reported(typed, verdict, validation, min_confidence)
        if confidence is None:
            continue
        span = typed.candidate.span
        entities.append(
            Entity(
                start=span.start,
                end=span.end,
                text=span.text,
                type=typed.type,
                confidence=confidence,
                proposed_by=typed.candidate.proposed_by,
                votes=typed.votes,
                verdict=verdict,
            )
        )
    return TaggedDocument(
        id=result.document.id,
        text=result.document.text,
        entities=resolve_overlaps(entities, overlaps),
        pool=result.manifest.pool,
    )


def reported(
    typed: TypedSpan, verdict: Verdict | None, validation: Literal["off", "soft", "hard"], min_confidence: float
) -> float | None:
    """The confidence with which an entity is reported; None: it is not."""
    confidence = typed.confidence
    if verdict is not None and verdict.verifier is not None:
        if validation == "hard" and not verdict.holds:
            return None
        if validation == "soft":
            confidence *= (1 + verdict.probability) / 2
    return None if confidence < min_confidence else round(confidence, 6)


def assemble_by(method: MethodSettings, result: DocumentEntities | DocumentTypes) -> TaggedDocument:
    """:func:`assemble` as the configuration says."""
    return assemble(
        result, overlaps=method.overlaps, validation=method.validation_kind, min_confidence=method.min_confidence
    )


def _judged(result: DocumentEntities | DocumentTypes) -> list[tuple[TypedSpan, Verdict | None]]:
    if isinstance(result, DocumentEntities):
        return [pair for sentence in result.sentences for pair in sentence.validated]
    return [(typed, None) for sentence in result.sentences for typed in sentence.typed if typed.type != NONE_TYPE]
