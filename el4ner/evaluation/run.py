"""One evaluation: a data set's sentences through the stages, strict scores, and what it cost in tokens and seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from el4ner.assemble import assemble_by
from el4ner.errors import DocumentError
from el4ner.evaluation.dataset import Dataset
from el4ner.evaluation.scoring import Labelled, Scores, score
from el4ner.pipeline import Pipeline
from el4ner.types import Document, Usage

__all__ = ["EvaluationResult", "evaluate"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class EvaluationResult:
    """``seconds`` by stage and ``usage`` are of all sentences together."""

    scores: Scores
    candidate_recall: float
    """The share of gold entities whose boundaries were among the candidates: no later stage can win the others back."""
    sentences: int
    seconds: dict[str, float]
    usage: Usage
    settings: dict[str, Any]
    fingerprints: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For ``el4ner eval --json``: the keys are a promise to scripts."""
        strict = self.scores.strict
        total = self.usage.prompt_tokens + self.usage.new_tokens
        count = max(1, self.sentences)
        return {
            "precision": strict.precision,
            "recall": strict.recall,
            "f1": strict.f1,
            "span_f1": self.scores.spans.f1,
            "candidate_recall": self.candidate_recall,
            "sentences": self.sentences,
            "seconds_per_sentence": sum(self.seconds.values()) / count,
            "seconds_by_stage": self.seconds,
            "tokens_per_sentence": total / count,
            "cached_tokens_per_sentence": self.usage.cached_tokens / count,
            "new_tokens_per_sentence": self.usage.new_tokens / count,
            "per_type": {label: asdict(scores) for label, scores in self.scores.per_type.items()},
            "settings": self.settings,
            "fingerprints": self.fingerprints,
        }


def evaluate(
    dataset: Dataset,
    pipeline: Pipeline,
    *,
    clock: Callable[[], float],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> EvaluationResult:
    """Run ``pipeline``, which hosts ``dataset.pool`` under its name, over the data set's sentences.

    Each sentence is a document of its own, and goes the way of any document (so a segmenter's mistake costs here too).
    ``clock`` gives seconds; ``progress`` is told how many sentences are done.

    Raises:
        DocumentError: a sentence cannot be processed: a figure over the rest would not be the data set's.
    """
    method = pipeline.settings.method
    seconds = dict.fromkeys(("extract", "classify", "validate"), 0.0)
    usage = Usage()
    predicted: list[list[Labelled]] = []
    proposed: list[set[tuple[int, int]]] = []
    for start in range(0, len(dataset.sentences), batch_size):
        batch = [
            Document(f"{start + offset}", sentence.text, dataset.pool.name)
            for offset, sentence in enumerate(dataset.sentences[start : start + batch_size])
        ]
        began = clock()
        candidates = _all(pipeline.extract(batch))
        extracted = clock()
        typed = _all(pipeline.classify(candidates))
        classified = clock()
        judged = _all(pipeline.validate(typed))
        ended = clock()
        seconds["extract"] += extracted - began
        seconds["classify"] += classified - extracted
        seconds["validate"] += ended - classified
        for found, types, result in zip(candidates, typed, judged, strict=True):
            usage += found.usage + types.usage + result.usage
            tagged = assemble_by(method, result)
            predicted.append([(entity.start, entity.end, entity.type) for entity in tagged.entities])
            proposed.append({(c.span.start, c.span.end) for s in found.sentences for c in s.candidates})
        progress(len(batch))
    gold: list[list[Labelled]] = [
        [(span.start, span.end, label) for span, label in sentence.spans] for sentence in dataset.sentences
    ]
    total = sum(map(len, gold))
    reached = sum((start, end) in spans for own, spans in zip(gold, proposed, strict=True) for start, end, _ in own)
    return EvaluationResult(
        scores=score(gold, predicted, list(dataset.pool.types)),
        candidate_recall=reached / total if total else 0.0,
        sentences=len(dataset.sentences),
        seconds=seconds,
        usage=usage,
        settings={"dataset": dataset.name, "split": dataset.split, **pipeline.settings.model_dump(mode="json")},
        fingerprints=_fingerprints(dataset, pipeline),
    )


def _all(results: Sequence[_T | DocumentError]) -> list[_T]:
    good: list[_T] = []
    for result in results:
        if isinstance(result, DocumentError):
            raise result
        good.append(result)
    return good


def _fingerprints(dataset: Dataset, pipeline: Pipeline) -> dict[str, str]:
    manifest = pipeline.manifest("classify", dataset.pool.name)
    return {
        "pool": manifest.pool_fingerprint,
        "prompts": manifest.prompt_version,
        "retriever": manifest.retriever,
        **{f"model:{name}": engine.fingerprint for name, engine in pipeline.engines.items()},
    }
