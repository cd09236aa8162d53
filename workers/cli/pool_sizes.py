"""``el4ner eval --pool-sizes``: one evaluation for each part of the pool, as a table, as JSON and as a plot."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workers.cli.output import results, table
from workers.cli.progress import Counter, TerminalProgress
from workers.cli.settings import work_offline_if_local

if TYPE_CHECKING:
    from el4ner.config import Settings
    from el4ner.engines.base import Engine
    from el4ner.evaluation import Dataset, EvaluationResult
    from el4ner.evaluation.learning_curve import LearningCurve
    from el4ner.evaluation.pool_subsets import PoolSubset
    from el4ner.retrieval import SentenceTransformerEmbedder

__all__ = ["FOLDER", "measure", "measure_with", "refuse_for_one_run", "show"]

FOLDER = "learning-curves"
"""Inside the cache folder: records and evidence of parts of pools. Its records' seconds are of sentences that were
often read for another pool before, so they are no other evaluation's."""


def refuse_for_one_run(**options: Path | None) -> None:
    """These options are about one run, and there will be many."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter("is for one run: with --pool-sizes there are many", param_hint=f"--{name}")


def measure(
    settings: Settings, dataset: Dataset, subsets: list[PoolSubset], batch: int, *, fresh: bool
) -> LearningCurve:
    """One pipeline for each subset. They share the models, and what the models have read."""
    work_offline_if_local(settings)
    from el4ner.engines.remembered_states import remembering
    from el4ner.loader import load_models
    from el4ner.models.prepare import default_cache_dir

    with (
        TerminalProgress() as progress,
        load_models(settings, cache_dir=default_cache_dir(), progress=progress) as (
            engines,
            embedder,
        ),
    ):
        remembered = {name: remembering(engine) for name, engine in engines.items()}
        return measure_with(settings, remembered, embedder, dataset, subsets, batch, progress, fresh=fresh)


def measure_with(
    settings: Settings,
    engines: Mapping[str, Engine],
    embedder: SentenceTransformerEmbedder | None,
    dataset: Dataset,
    subsets: list[PoolSubset],
    batch: int,
    progress: TerminalProgress,
    *,
    fresh: bool,
) -> LearningCurve:
    """As :func:`measure`, with models that are there already."""
    from el4ner.evaluation import evaluate
    from el4ner.evaluation.learning_curve import learning_curve
    from el4ner.evaluation.store import FOLDER as RECORDS
    from el4ner.loader import pipeline_from
    from el4ner.models.prepare import default_cache_dir

    folder = default_cache_dir() / FOLDER

    def run(part: Dataset) -> EvaluationResult:
        pools = {part.pool.name: part.pool}
        pipeline = pipeline_from(settings, engines, pools, embedder, cache_dir=folder, progress=progress)
        label = f"{part.name} {part.split}, {len(part.pool.sentences)} labelled sentences"
        with Counter(label, len(part.sentences)) as counter:
            return evaluate(
                part,
                pipeline,
                clock=time.perf_counter,
                batch_size=batch,
                progress=counter.advance,
                cache=folder / RECORDS,
                fresh=fresh,
            )

    return learning_curve(dataset, subsets, run)


def show(curve: LearningCurve) -> None:
    """The table, and what its words mean."""
    from el4ner.evaluation.curve_report import EXPLAINED
    from el4ner.evaluation.terminal_report import WIDTH, interval

    console = results()
    first = curve.points[0].runs[0].result
    console.print(
        f"{curve.dataset.name} {curve.dataset.split}: {len(curve.dataset.sentences)} sentences, "
        f"{first.scores.strict.support} entities"
    )
    numbers = ("pool", "F1", "95 % interval", "worst–best", "boundaries", "spans", "types missing")
    shown = table(*numbers, right=numbers)
    for point in curve.points:
        mean, ends = point.f1
        shown.add_row(
            "all" if point.size == curve.pool_sentences else str(point.size),
            f"{mean:.3f}",
            interval(ends),
            interval(point.seeds_f1) if len(point.runs) > 1 else "",
            f"{point.span_f1:.3f}",
            f"{point.labelled:.0f}",
            f"{point.missing:.1f} of {len(curve.dataset.pool.types)}",
        )
    console.print(shown)
    for line in textwrap.wrap(EXPLAINED, WIDTH):
        console.print(line)
