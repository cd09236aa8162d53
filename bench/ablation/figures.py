"""What the table says of one run, and the run of the baseline that is no pipeline of ours."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Final

from el4ner.evaluation import Dataset, EvaluationResult, SentenceRecord
from el4ner.evaluation.dataset import gold_of
from el4ner.evaluation.summary import summarise
from el4ner.types import Entity

__all__ = ["SkippedError", "by_spacy", "figures_of", "seconds_of"]

SPACY_STAGE: Final = "extract"


class SkippedError(Exception):
    """A row cannot be measured here; says why."""


def by_spacy(dataset: Dataset) -> EvaluationResult:
    """The baseline's answers as a run without candidates.

    Raises:
        SkippedError: it is not installed.
    """
    from baseline_spacy import tag

    types = list(dataset.pool.types)
    texts = [sentence.text for sentence in dataset.sentences]
    try:
        tag(texts[:10], types)  # loads the model
    except SystemExit as error:
        raise SkippedError(f"spaCy or its model is not installed ({' '.join(str(error).split())})") from error
    began = time.perf_counter()
    tagged = tag(texts, types, articles=False)
    seconds = (time.perf_counter() - began) / max(1, len(texts))
    records = [
        SentenceRecord(
            text=sentence.text,
            gold=gold_of(sentence),
            pieces=(),
            candidates=(),
            entities=tuple(Entity(start, end, sentence.text[start:end], label, 1.0) for start, end, label in own),
            seconds={SPACY_STAGE: seconds},
            usage={},
        )
        for sentence, own in zip(dataset.sentences, tagged, strict=True)
    ]
    return summarise(records, pool=dataset.pool, settings={}, fingerprints={})


def seconds_of(result: EvaluationResult) -> float:
    """A sentence's."""
    return sum(result.seconds.values()) / max(1, result.sentences)


def figures_of(result: EvaluationResult) -> dict[str, Any]:
    """What the table shows of a run that was compared with the reference."""
    known = result.as_json()
    compared = result.comparison
    assert compared is not None
    is_ours = bool(result.settings)
    figures = ("f1", "f1_ci", "precision", "recall", "span_f1", "sentences", "cached_sentences", "seconds_per_sentence")
    return {
        **{name: known[name] for name in figures},
        # Somebody else's tagger gives no confidences, and does not say what it has considered.
        "ece": known["ece"] if is_ours else None,
        "candidate_recall": known["candidate_recall"] if is_ours else None,
        "entities": result.scores.strict.support,
        "reference_f1": compared.other_f1,
        "difference": compared.difference,
        "difference_ci": compared.difference_ci,
        "p_value": compared.p_value,
        "losses": asdict(result.losses)["outcomes"],
    }
