"""How many labelled sentences are needed: el4ner, its neighbours alone, and spaCy trained, on the same sentences.

    uv sync --extra embedded --extra local --group bench
    python bench/learning_curve.py --data FOLDER [--data FOLDER …] [--split test] [--limit 150] [--seed 0]
                                   [--pool-sizes 5,10,20,50,100,200,all] [--pool-seeds 3] [--only ROW,ROW]
                                   [--json OUT] [--svg OUT] [--markdown OUT]

A folder has train, dev and test files in CoNLL columns, as for `el4ner eval --pool-sizes`, whose pools and intervals
these are (docs/evaluation.md). Sizes that a train split does not have are left out for it. All rows of a data set are
over the same sentences, with the same labelled ones:

- `default`: the default ensemble and settings;
- `neighbours`: the members' neighbours as the only evidence;
- `embedder`: the same by the sentence embedder's vectors, without a language model;
- `spacy`: spaCy's recogniser trained from random weights (bench/spacy_training.py);
- `spacy-sm`: the same from the layers of en_core_web_sm, which has learnt from a large labelled corpus before.

Everything measured is kept; a killed run goes on. Output files are written anew after every row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from ablation.rows import Row, settings_of  # noqa: E402
from spacy_training import BEGINNINGS, by_training  # noqa: E402

from el4ner.config import PoolsSettings, Settings  # noqa: E402
from el4ner.engines.base import Engine  # noqa: E402
from el4ner.engines.remembered_states import remembering  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.evaluation import Dataset, load_dataset  # noqa: E402
from el4ner.evaluation.curve_report import as_curve, render_curves  # noqa: E402
from el4ner.evaluation.learning_curve import LearningCurve, learning_curve  # noqa: E402
from el4ner.evaluation.pool_subsets import PoolSubset, read_sizes, subsets_of  # noqa: E402
from el4ner.evaluation.store import FOLDER as RECORDS  # noqa: E402
from el4ner.loader import load_models  # noqa: E402
from el4ner.models.prepare import default_cache_dir  # noqa: E402
from el4ner.retrieval import SentenceTransformerEmbedder  # noqa: E402
from workers.cli.output import tell  # noqa: E402
from workers.cli.pool_sizes import FOLDER, measure_with  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402
from workers.cli.settings import work_offline_if_local  # noqa: E402

NEIGHBOURS: Final = {"evidence": ["neighbours"]}
OURS: Final[Mapping[str, Row]] = {
    key: Row(key, "curve", label, {"ensemble": {"preset": "default"}, "method": method})
    for key, label, method in (
        ("default", "el4ner, default", {}),
        ("neighbours", "el4ner, neighbours only", NEIGHBOURS),
        ("embedder", "neighbours, no language model", {**NEIGHBOURS, "encoder": "embedder"}),
    )
}
SPACY: Final[Mapping[str, tuple[str, str]]] = {
    "spacy": (BEGINNINGS[0], "spaCy trained, from nothing"),
    "spacy-sm": (BEGINNINGS[1], "spaCy trained, from OntoNotes"),
}
LABELS: Final = {**{key: row.label for key, row in OURS.items()}, **{key: label for key, (_, label) in SPACY.items()}}


@dataclass(frozen=True)
class Measured:
    """The curves of one data set, by row."""

    dataset: Dataset
    curves: dict[str, LearningCurve]


class Bench:
    """Measures rows by models that are loaded once. They read each text once, for all rows and pools.

    Without ``engines`` and ``embedder`` only rows of :data:`SPACY` can be measured.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        embedder: SentenceTransformerEmbedder | None,
        progress: TerminalProgress,
        *,
        batch: int,
    ) -> None:
        self._engines = engines
        self._embedder = embedder
        self._progress = progress
        self._batch = batch

    def curve(self, row: str, dataset: Dataset, subsets: list[PoolSubset]) -> LearningCurve:
        """One of :data:`LABELS` on one data set."""
        if row in SPACY:
            beginning, _ = SPACY[row]
            cache = default_cache_dir() / FOLDER / RECORDS
            seeds = {subset.pool.fingerprint: subset.seed for subset in subsets}
            return learning_curve(
                dataset, subsets, lambda part: by_training(part, beginning, seeds[part.pool.fingerprint], cache)
            )
        settings = _for_pool(settings_of(OURS[row]), dataset)
        return measure_with(
            settings, self._engines, self._embedder, dataset, subsets, self._batch, self._progress, fresh=False
        )


def _for_pool(settings: Settings, dataset: Dataset) -> Settings:
    pools = PoolsSettings(default=dataset.pool.name, paths={dataset.pool.name: dataset.pool.name})
    return settings.model_copy(update={"pools": pools})


def markdown(measured: Sequence[Measured]) -> str:
    """A table for each data set: F1 and its interval by size."""
    lines = []
    for each in measured:
        points = next(iter(each.curves.values())).points
        whole = len(each.dataset.pool.sentences)
        sizes = [f"{point.size} (all)" if point.size == whole else str(point.size) for point in points]
        count = len(each.dataset.sentences)
        lines += [f"**{each.dataset.name}**, {count} sentences of the {each.dataset.split} split:", ""]
        lines += ["| labelled sentences | " + " | ".join(sizes) + " |", "|---|" + "---:|" * len(sizes)]
        lines.append("| labelled entities | " + " | ".join(f"{point.labelled:.0f}" for point in points) + " |")
        types = len(each.dataset.pool.types)
        lines.append(
            f"| of {types} types without any | " + " | ".join(f"{point.missing:.1f}" for point in points) + " |"
        )
        for row, curve in each.curves.items():
            cells = [f"{mean:.1%} ({low:.0%}–{high:.0%})" for mean, (low, high) in (p.f1 for p in curve.points)]
            lines.append(f"| {LABELS[row]} | " + " | ".join(cell.replace("%", "") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="a data set's folder; may be repeated"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=150, help="sentences of each data set, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool-sizes", default="5,10,20,50,100,200,all")
    parser.add_argument("--pool-seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="sentences that go through the stages together")
    parser.add_argument("--only", default="", metavar="ROW,ROW", help=f"of {', '.join(LABELS)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    rows = [name.strip() for name in options.only.split(",") if name.strip()] or list(LABELS)
    unknown = [row for row in rows if row not in LABELS]
    if unknown:
        parser.error(f"--only {', '.join(unknown)}: no such row; there are: {', '.join(LABELS)}")
    try:
        sizes = read_sizes(options.pool_sizes)
        measured = [
            Measured(load_dataset(folder, split=options.split, limit=options.limit, seed=options.seed), {})
            for folder in options.data
        ]
    except El4nerError as error:
        parser.error(str(error))
    try:
        with TerminalProgress() as progress, ExitStack() as models:
            bench = Bench(*_models(rows, models, progress), progress, batch=options.batch)
            for each in measured:
                there = len(each.dataset.pool.sentences)
                fitting = [size for size in sizes if size is None or size <= there]
                subsets = subsets_of(each.dataset.pool, fitting, options.pool_seeds)
                for row in rows:
                    tell(f"{row} on {each.dataset.name} …")
                    began = time.perf_counter()
                    each.curves[row] = bench.curve(row, each.dataset, subsets)
                    tell(f"  {time.perf_counter() - began:.0f} s")
                    write([done for done in measured if done.curves], options)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    print(markdown(measured))


def _models(
    rows: Sequence[str], models: ExitStack, progress: TerminalProgress
) -> tuple[Mapping[str, Engine], SentenceTransformerEmbedder | None]:
    """What the rows need, until ``models`` is closed."""
    if all(row in SPACY for row in rows):
        return {}, None
    # By the settings of the row that needs most.
    settings = settings_of(OURS["embedder"])
    work_offline_if_local(settings)
    engines, embedder = models.enter_context(load_models(settings, cache_dir=default_cache_dir(), progress=progress))
    return {name: remembering(engine) for name, engine in engines.items()}, embedder


def write(measured: Sequence[Measured], options: argparse.Namespace) -> None:
    """The table so far, wherever it is wanted. The picture has the data sets that all rows are measured on."""
    if options.json is not None:
        figures: dict[str, Any] = {
            each.dataset.name: {row: curve.as_json() for row, curve in each.curves.items()} for each in measured
        }
        options.json.write_text(json.dumps({"limit": options.limit, "seed": options.seed, "data": figures}, indent=1))
    if options.markdown is not None:
        options.markdown.write_text(markdown(measured), encoding="utf-8")
    whole = [each for each in measured if len(each.curves) == len(measured[0].curves)]
    if options.svg is not None:
        fields = [
            (each.dataset.name, [as_curve(curve, LABELS[row]) for row, curve in each.curves.items()]) for each in whole
        ]
        options.svg.write_text(render_curves(fields), encoding="utf-8")


if __name__ == "__main__":
    main()
