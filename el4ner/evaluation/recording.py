"""From the three stages' results for a labelled sentence to its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from el4ner.assemble import assemble_by
from el4ner.config import MethodSettings
from el4ner.evaluation.dataset import LabelledSentence, gold_of
from el4ner.evaluation.sentence_records import Considered, Fate, Labelled, SegmentedSentence, SentenceRecord
from el4ner.types import (
    NONE_TYPE,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Sentence,
    SentenceEntities,
    TypedSpan,
    Verdict,
)

__all__ = ["Results", "record_of"]


@dataclass(frozen=True, slots=True)
class Results:
    """What each stage said about one document."""

    extract: DocumentCandidates
    classify: DocumentTypes
    validate: DocumentEntities


def record_of(
    sentence: LabelledSentence, results: Results, method: MethodSettings, seconds: Mapping[str, float]
) -> SentenceRecord:
    """The record of a sentence that went through the stages as a document of its own.

    Args:
        sentence: the text and its gold standard.
        results: of the stages.
        method: how the document is assembled.
        seconds: by stage, this sentence's share.
    """
    entities = assemble_by(method, results.validate).entities
    kept = {(entity.start, entity.end, entity.type) for entity in entities}
    candidates = []
    for typed, judged in zip(results.classify.sentences, results.validate.sentences, strict=True):
        verdicts = iter(judged.validated)
        for span in typed.typed:
            fate, verdict = _fate(span, typed.sentence, verdicts, kept, results.validate, method)
            candidates.append(
                Considered(
                    start=span.candidate.span.start,
                    end=span.candidate.span.end,
                    text=span.candidate.span.text,
                    proposed_by=span.candidate.proposed_by,
                    type=span.type,
                    confidence=min(1.0, span.confidence),
                    votes=dict(span.votes),
                    verdict=verdict,
                    fate=fate,
                )
            )
    return SentenceRecord(
        text=sentence.text,
        gold=gold_of(sentence),
        pieces=tuple(
            SegmentedSentence(proposed.sentence.start, proposed.sentence.end, proposed.demonstrations)
            for proposed in results.extract.sentences
        ),
        candidates=tuple(candidates),
        entities=entities,
        seconds=dict(seconds),
        usage={
            "extract": results.extract.usage,
            "classify": results.classify.usage,
            "validate": results.validate.usage,
        },
    )


def _fate(
    span: TypedSpan,
    sentence: Sentence,
    verdicts: Iterator[tuple[TypedSpan, Verdict]],
    kept: set[Labelled],
    result: DocumentEntities,
    method: MethodSettings,
) -> tuple[Fate, Verdict | None]:
    if span.type == NONE_TYPE:
        return "none", None
    # Validation answers, in order, for every candidate that is no "none".
    _, verdict = next(verdicts)
    shown = verdict if verdict.verifier is not None else None
    where = span.candidate.span
    if (where.start, where.end, span.type) in kept:
        return "kept", shown
    # Assembled without its rivals it is there if only they were in its way: the rules themselves stay in `assemble`.
    alone = replace(result, sentences=(SentenceEntities(sentence, ((span, verdict),)),))
    if assemble_by(method, alone).entities:
        return "overlapped", shown
    return ("rejected" if method.validation_kind == "hard" and not verdict.holds else "unsure"), shown
