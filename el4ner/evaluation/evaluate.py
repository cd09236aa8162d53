"""One evaluation: a data set's sentences through the stages, strict scores, and what it cost in tokens and seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from el4ner.decided_by import decided_by
from el4ner.errors import DocumentError
from el4ner.evaluation.dataset import Dataset, LabelledSentence, gold_of
from el4ner.evaluation.recording import Results, record_of
from el4ner.evaluation.sentence_records import FORMAT, SentenceRecord
from el4ner.evaluation.store import RecordStore
from el4ner.evaluation.summary import EvaluationResult, summarise
from el4ner.participation import STAGES
from el4ner.pipeline import Pipeline
from el4ner.serialize import fingerprint
from el4ner.types import Document

__all__ = ["EvaluationResult", "evaluate"]

_T = TypeVar("_T")


def evaluate(
    dataset: Dataset,
    pipeline: Pipeline,
    *,
    clock: Callable[[], float],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
    cache: Path | None = None,
    fresh: bool = False,
    seed: int = 0,
) -> EvaluationResult:
    """Run ``pipeline``, which hosts ``dataset.pool`` under its name, over the data set's sentences.

    Each sentence is a document of its own, and goes the way of any document (so a segmenter's mistake costs here too).
    A text that occurs twice is tagged once.

    Args:
        dataset: the sentences and their pool.
        pipeline: what is evaluated.
        clock: gives seconds.
        batch_size: sentences that go through the stages together.
        progress: is told how many more sentences are done.
        cache: a folder for what was measured: a later call with an equal pipeline goes on from there, also when this
            one is killed. None keeps nothing; nor is anything kept where answers depend on the sentences before
            (``method.priors``).
        fresh: measure every sentence now, whatever the folder has.
        seed: of the intervals' resampling.

    Raises:
        DocumentError: a sentence cannot be processed: a figure over the rest would not be the data set's.
        EvaluationError: the cache folder cannot be used.
    """
    identity = _fingerprint(pipeline, dataset.pool.name)
    mix = pipeline.mixes.get(dataset.pool.name)
    by_stream = mix is not None and mix.corrects
    if mix is not None:
        mix.begin_anew()  # what the pipeline was asked before says nothing of this data set
    store = None if cache is None or by_stream else RecordStore(cache, identity, fresh=fresh)
    known: dict[str, SentenceRecord] = {}
    waiting: dict[str, LabelledSentence] = {}
    for sentence in dataset.sentences:
        stored = store.get(sentence.text) if store is not None else None
        if stored is not None:
            known[sentence.text] = stored
        else:
            waiting.setdefault(sentence.text, sentence)
    repeats = len(dataset.sentences) - len(waiting)
    progress(repeats)
    cached = sum(sentence.text in known for sentence in dataset.sentences)
    todo = list(waiting.values())
    for start in range(0, len(todo), batch_size):
        records = _measured(todo[start : start + batch_size], dataset, pipeline, clock)
        if store is not None:
            store.add(records)
        known.update((record.text, record) for record in records)
        progress(len(records))
    return summarise(
        # The gold standard is the data set's own: labels that were mended since count at once.
        [replace(known[sentence.text], gold=gold_of(sentence)) for sentence in dataset.sentences],
        pool=dataset.pool,
        settings={"dataset": dataset.name, "split": dataset.split, **pipeline.settings.model_dump(mode="json")},
        fingerprints={**_fingerprints(dataset, pipeline), "run": identity},
        cached=cached,
        seed=seed,
    )


def _measured(
    sentences: Sequence[LabelledSentence], dataset: Dataset, pipeline: Pipeline, clock: Callable[[], float]
) -> list[SentenceRecord]:
    """One batch through the stages; its seconds are shared out evenly."""
    batch = [Document(str(number), sentence.text, dataset.pool.name) for number, sentence in enumerate(sentences)]
    times = [clock()]
    candidates = _all(pipeline.extract(batch))
    times.append(clock())
    typed = _all(pipeline.classify(candidates))
    times.append(clock())
    judged = _all(pipeline.validate(typed))
    times.append(clock())
    shares = [(ended - began) / len(sentences) for began, ended in pairwise(times)]
    seconds: dict[str, float] = dict(zip(STAGES, shares, strict=True))
    return [
        record_of(sentence, Results(proposed, types, result), pipeline.settings.method, seconds)
        for sentence, proposed, types, result in zip(sentences, candidates, typed, judged, strict=True)
    ]


def _all(results: Sequence[_T | DocumentError]) -> list[_T]:
    good: list[_T] = []
    for result in results:
        if isinstance(result, DocumentError):
            raise result
        good.append(result)
    return good


def _fingerprint(pipeline: Pipeline, pool: str) -> str:
    """Of everything that decides what ``pipeline`` says about a text of ``pool``; not of how fast it says it."""
    return fingerprint(FORMAT, decided_by(pipeline.settings, [pipeline.manifest(stage, pool) for stage in STAGES]))


def _fingerprints(dataset: Dataset, pipeline: Pipeline) -> dict[str, str]:
    manifest = pipeline.manifest("classify", dataset.pool.name)
    return {
        "pool": manifest.pool_fingerprint,
        "prompts": manifest.prompt_version,
        "retriever": manifest.retriever,
        **{f"model:{name}": engine.fingerprint for name, engine in pipeline.engines.items()},
    }
