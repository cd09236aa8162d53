"""One row on one data set: engines are loaded once for all rows, and every sentence is measured once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tag import forget_prompts

from ablation.figures import by_spacy, figures_of, seconds_of
from ablation.rows import REFERENCE, SPACY, Row, cost_of, settings_of
from el4ner.code_fingerprint import code_fingerprint
from el4ner.config import ModelSettings, PoolsSettings, Settings
from el4ner.engines.base import Engine
from el4ner.engines.registry import load_engine
from el4ner.evaluation import Dataset, EvaluationResult, compare_with, evaluate, load_dataset
from el4ner.evaluation.store import FOLDER
from el4ner.loader import pipeline_from
from el4ner.models.prepare import prepare
from el4ner.models.progress import Progress
from el4ner.participation import needs_embedder
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool
from el4ner.retrieval import SentenceTransformerEmbedder
from el4ner.types import Document

__all__ = ["SIDE_BY_SIDE", "Bench", "Options"]

SIDE_BY_SIDE: Final = "evaluations-side-by-side"
"""Paper mode and the reference are measured by turns, batch after batch, for the ratio of their seconds. Both have
their records in this folder, so that neither was measured on another day."""


@dataclass(frozen=True)
class Options:
    """``limits``: the most sentences, by cost; None takes all."""

    folders: Sequence[Path]
    split: str
    seed: int
    batch: int
    limits: dict[str, int | None]
    cache: Path
    reference: Row
    fresh: bool = False


class Bench:
    """Measures rows. Closes every engine at its end; one owner thread.

    Args:
        options: what and where.
        preparing: makes a context manager that is told of what is prepared.
        counter: makes, from a label and a total, a context manager with an ``advance``.
    """

    def __init__(
        self,
        options: Options,
        preparing: Callable[[], AbstractContextManager[Progress]],
        counter: Callable[[str, int], Any],
    ) -> None:
        self._options = options
        self._preparing = preparing
        code_fingerprint()  # what is measured is kept under the code that is loaded now, whatever changes on disk
        self._counter = counter
        self._engines: dict[tuple[str, ModelSettings], Engine] = {}
        self._embedders: dict[str, SentenceTransformerEmbedder] = {}
        self._datasets: dict[tuple[Path, int | None], Dataset] = {}
        self._references: dict[tuple[Path, int | None], EvaluationResult] = {}
        self._remeasured: set[tuple[str, Path, int | None]] = set()

    def close(self) -> None:
        """Give the models' memory back."""
        for engine in self._engines.values():
            engine.close()

    def measured(self, row: Row, folder: Path) -> dict[str, Any]:
        """The figures of ``row`` on the data set in ``folder``, beside the reference's on the same sentences.

        Raises:
            SkippedError: the row needs something that is not installed.
        """
        cost = cost_of(row)
        dataset = self.dataset(folder, self._options.limits[cost])
        more: dict[str, Any] = {}
        if row.key == SPACY:
            result = by_spacy(dataset)
        elif cost == "paper":
            result, beside = self._side_by_side(row, folder, dataset)
            more["reference_seconds_per_sentence"] = seconds_of(beside)
            more["seconds_ratio"] = seconds_of(result) / max(1e-9, seconds_of(beside))
        else:
            result = self._by_pipeline(row, folder, dataset)
        reference = self._reference(folder, self._options.limits[cost])
        found = compare_with(result, reference.records, name=REFERENCE)
        return figures_of(found) | more

    def dataset(self, folder: Path, limit: int | None) -> Dataset:
        """The split, or as many of its sentences."""
        key = (folder, limit)
        if key not in self._datasets:
            self._datasets[key] = load_dataset(folder, split=self._options.split, limit=limit, seed=self._options.seed)
        return self._datasets[key]

    def _reference(self, folder: Path, limit: int | None) -> EvaluationResult:
        key = (folder, limit)
        if key not in self._references:
            dataset = self.dataset(folder, limit)
            self._references[key] = self._by_pipeline(self._options.reference, folder, dataset)
        return self._references[key]

    def _by_pipeline(self, row: Row, folder: Path, dataset: Dataset) -> EvaluationResult:
        pipeline = self._pipeline(row, folder, dataset)
        label = f"{row.key}: {dataset.name} {dataset.split}"
        # A second pass over the same sentences in this run takes what the first has measured, even with --fresh.
        key = (row.key, folder, len(dataset.sentences))
        fresh = self._options.fresh and key not in self._remeasured
        self._remeasured.add(key)
        with self._counted(label, dataset) as advance:
            return self._run(pipeline, dataset, FOLDER, fresh=fresh, advance=advance)

    def _side_by_side(self, row: Row, folder: Path, dataset: Dataset) -> tuple[EvaluationResult, EvaluationResult]:
        pipelines = [self._pipeline(each, folder, dataset) for each in (row, self._options.reference)]
        sentences, batch = dataset.sentences, self._options.batch
        with self._counted(f"{row.key}: {dataset.name} {dataset.split}", dataset) as advance:
            for start in range(0, len(sentences), batch):
                part = replace(dataset, sentences=sentences[start : start + batch])
                for pipeline in pipelines:
                    self._run(pipeline, part, SIDE_BY_SIDE, fresh=self._options.fresh)
                advance(len(part.sentences))
        done, beside = (self._run(pipeline, dataset, SIDE_BY_SIDE, fresh=False) for pipeline in pipelines)
        return done, beside

    def _run(
        self,
        pipeline: Pipeline,
        dataset: Dataset,
        folder: str,
        *,
        fresh: bool,
        advance: Callable[[int], None] = lambda done: None,
    ) -> EvaluationResult:
        return evaluate(
            dataset,
            pipeline,
            clock=time.perf_counter,
            batch_size=self._options.batch,
            progress=advance,
            cache=self._options.cache / folder,
            fresh=fresh,
        )

    def _pipeline(self, row: Row, folder: Path, dataset: Dataset) -> Pipeline:
        settings = _for_pool(settings_of(row), folder, dataset)
        with self._preparing() as progress:
            pipeline = self._prepared(settings, dataset.pool, progress)
        if cost_of(row) != "paper":  # there the first pass is a small part of what a sentence costs
            _warm(pipeline, dataset)
        forget_prompts(self._engines.values())  # a row's seconds are its own
        return pipeline

    def _prepared(self, settings: Settings, pool: Pool, progress: Progress) -> Pipeline:
        """As :func:`~el4ner.loader.load_pipeline`, with the engines and embedders that are there already."""
        cache = self._options.cache
        embedder = None
        if needs_embedder(settings):
            source = settings.retrieval.embedder
            if source not in self._embedders:
                self._embedders[source] = SentenceTransformerEmbedder(prepare(source, cache, progress))
            embedder = self._embedders[source]
        engines: dict[str, Engine] = {}
        for name in settings.ensemble.members:
            key = (name, settings.models[name])
            if key not in self._engines:
                self._engines[key] = load_engine(*key, cache_dir=cache, progress=progress)
            engines[name] = self._engines[key]
        return pipeline_from(settings, engines, {pool.name: pool}, embedder, cache_dir=cache, progress=progress)

    @contextmanager
    def _counted(self, label: str, dataset: Dataset) -> Iterator[Callable[[int], None]]:
        with self._counter(label, len(dataset.sentences)) as counter:
            yield counter.advance


def _for_pool(settings: Settings, folder: Path, dataset: Dataset) -> Settings:
    pools = PoolsSettings(default=dataset.pool.name, paths={dataset.pool.name: str(folder)})
    return settings.model_copy(update={"pools": pools})


def _warm(pipeline: Pipeline, dataset: Dataset) -> None:
    """The first pass of a model pays for what later ones find ready."""
    documents = [Document(str(i), each.text, dataset.pool.name) for i, each in enumerate(dataset.pool.sentences[:2])]
    found = pipeline.extract(documents)
    pipeline.classify([one for one in found if not isinstance(one, Exception)])
