"""What corrections are worth: a simulated teacher, who looks at what the queue puts first, or at sentences by chance.

    uv sync --extra embedded --extra local --group bench
    python bench/teach.py --data FOLDER [--data FOLDER …] [--split test] [--limit 150] [--seeds 3]
                          [--members NAME,NAME] [--only ROW,ROW] [--json OUT] [--svg OUT] [--markdown OUT]

A folder has train, dev and test files in CoNLL columns. A pool begins with 50 sentences of the train split, drawn by
the seed. Other sentences of train and of dev are the stream, whose labels nobody has seen. A correction is a sentence
of it that somebody looks at: it is in the pool from then on, as it is labelled. F1 is measured after 0, 10, 25, 50, 100
and 200 of them, as if the pool's files had them from the start (`el4ner pool export`):

- `queue`: those that `el4ner pool queue` puts first. The teacher goes through a list of 50, the command's default, and
  then has the stream tagged by the pool as it is now, and a new list made (after 100 corrections: one of 100);
- `random`: by chance. Both begin with the same pools.

What was chosen how was decided with `--split dev`, where F1 is measured on sentences of dev that are not in the stream.

The members read each sentence once, and that is kept in the cache folder: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from ablation.rows import Row, settings_of  # noqa: E402
from teaching_material import BEGINNING, Material, for_pool, kept, material_of, read  # noqa: E402

from el4ner.config import Settings  # noqa: E402
from el4ner.engines.base import Engine  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.evaluation import evaluate  # noqa: E402
from el4ner.evaluation.curve_report import render_curves  # noqa: E402
from el4ner.evaluation.plots import Curve, Place  # noqa: E402
from el4ner.evaluation.sentence_records import SentenceRecord  # noqa: E402
from el4ner.evaluation.stats import Interval, mean_f1, tallies_of  # noqa: E402
from el4ner.loader import load_models, pipeline_from  # noqa: E402
from el4ner.models.prepare import default_cache_dir  # noqa: E402
from el4ner.pools import Pool, PoolSentence  # noqa: E402
from el4ner.pools.review_queue import ReviewQueue  # noqa: E402
from el4ner.types import TaggedDocument  # noqa: E402
from workers.cli.output import tell  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402
from workers.cli.settings import work_offline_if_local  # noqa: E402

SIZES: Final = (0, 10, 25, 50, 100, 200)
A_LIST: Final = 50
LABELS: Final = {"queue": "chosen by the queue", "random": "chosen by chance"}
FOLDER: Final = "teaching"
"""Inside the cache folder."""

Choose = Callable[[Pool, Sequence[SentenceRecord], int], list[str]]
"""From the pool so far, the stream as it is tagged by it, and a number: the texts to look at."""


@dataclass(frozen=True)
class Measured:
    """What each seed's pool gives after that many corrections. ``changed``: how many of these sentences were tagged
    wrongly when they were put on the list; None: nobody has tagged them."""

    records: tuple[Sequence[SentenceRecord], ...]
    changed: tuple[int, ...] | None

    @property
    def f1(self) -> tuple[float, Interval]:
        """The mean over the seeds, and its 95 % interval over sentences and seeds."""
        return mean_f1([tallies_of(records) for records in self.records])


@dataclass
class Figures:
    """Of one data set: by row and number of corrections."""

    material: Material
    by_row: dict[str, dict[int, Measured]] = field(default_factory=dict)

    def needed(self, size: int) -> float | None:
        """How many corrections by the queue give the F1 that ``size`` by chance give, on straight lines between what is
        measured; None: more than there are."""
        goal, curve = self.by_row["random"][size].f1[0], self.by_row["queue"]
        before: tuple[int, float] | None = None
        for count in sorted(curve):
            f1 = curve[count].f1[0]
            if f1 >= goal:
                return float(count) if before is None else _between(before, (count, f1), goal)
            before = count, f1
        return None


def _between(left: tuple[int, float], right: tuple[int, float], goal: float) -> float:
    return left[0] + (right[0] - left[0]) * (goal - left[1]) / (right[1] - left[1])


def by_queue(pool: Pool, stream: Sequence[SentenceRecord], count: int) -> list[str]:
    """What ``el4ner pool queue`` shows first."""
    queue = ReviewQueue(pool)
    for number, record in enumerate(stream):
        queue.add(TaggedDocument(str(number), record.text, record.entities, pool.name))
    # The teacher is shown a sentence, and corrects the document, which the data set labels.
    wanted = dict.fromkeys(sentence.document for sentence in queue.first(len(stream)))
    return [stream[int(document)].text for document in wanted][:count]


class Simulation:
    """Teaches pools of one data set."""

    def __init__(
        self, settings: Settings, engines: Mapping[str, Engine], material: Material, folder: Path, batch: int
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._material = material
        self._folder = folder
        self._batch = batch

    def row(self, sizes: Sequence[int], choose: Choose | None) -> dict[int, Measured]:
        """``choose`` None: by chance."""
        by_size: dict[int, list[tuple[Sequence[SentenceRecord], int]]] = {size: [] for size in sizes}
        for seed in range(len(self._material.beginnings)):
            left = {sentence.text: sentence for sentence in self._material.candidates[seed]}
            corrected: list[PoolSentence] = []
            waiting: list[str] = []
            changed, right = 0, set[str]()
            for size in sizes:
                if choose is None:
                    waiting = list(left)
                elif not waiting and size:
                    pool = self._material.pool(seed, corrected)
                    stream = self._tagged(pool, tuple(left.values()))
                    waiting = choose(pool, stream, max(A_LIST, size - len(corrected)))
                    right = {record.text for record in stream if set(record.predicted) == set(record.gold)}
                now = size - len(corrected)
                changed += sum(text not in right for text in waiting[:now])
                corrected += [left.pop(text) for text in waiting[:now]]
                waiting = waiting[now:]
                pool = self._material.pool(seed, corrected)
                by_size[size].append((self._tagged(pool, self._material.dataset.sentences), changed))
        return {
            size: Measured(
                tuple(records for records, _ in runs),
                None if choose is None else tuple(changed for _, changed in runs),
            )
            for size, runs in by_size.items()
        }

    def _tagged(self, pool: Pool, sentences: tuple[PoolSentence, ...]) -> Sequence[SentenceRecord]:
        dataset = replace(self._material.dataset, pool=pool, sentences=sentences)
        settings = for_pool(self._settings, pool)
        pipeline = pipeline_from(settings, self._engines, {pool.name: pool}, None, cache_dir=self._folder / pool.name)
        result = evaluate(
            dataset,
            pipeline,
            clock=time.perf_counter,
            batch_size=self._batch,
            cache=self._folder / pool.name / "evaluations",
        )
        return result.records


def markdown(measured: Sequence[Figures]) -> str:
    """A table for each data set."""
    lines = []
    for each in measured:
        sizes = sorted(next(iter(each.by_row.values())))
        material = each.material
        lines.append(
            f"**{material.name}**, {len(material.dataset.sentences)} sentences of the {material.dataset.split} split, "
            f"{len(material.candidates[0])} in the stream:"
        )
        lines += ["", "| corrections | " + " | ".join(map(str, sizes)) + " |", "|---|" + "---:|" * len(sizes)]
        for row, by_size in each.by_row.items():
            cells = [f"{f1:.1%} ({low:.0%}–{high:.0%})" for f1, (low, high) in (by_size[size].f1 for size in sizes)]
            lines.append(f"| {LABELS.get(row, row)} | " + " | ".join(cell.replace("%", "") for cell in cells) + " |")
        if each.by_row.keys() >= LABELS.keys():
            needed = ["more" if (count := each.needed(size)) is None else f"{count:.0f}" for size in sizes[1:]]
            lines.append("| by the queue, for the F1 of chance | | " + " | ".join(needed) + " |")
        lines.append("")
    return "\n".join(lines)


def as_json(each: Figures) -> dict[str, Any]:
    """The figures of one data set."""
    return {
        row: {
            size: {
                "f1": point.f1[0],
                "f1_ci": point.f1[1],
                "seeds": [mean_f1([tallies_of(records)])[0] for records in point.records],
                "changed": None if point.changed is None else fmean(point.changed),
            }
            for size, point in by_size.items()
        }
        for row, by_size in each.by_row.items()
    }


def curves(each: Figures) -> tuple[str, list[Curve]]:
    """What the plot shows: sentences of the pool, those that it began with too."""
    return each.material.name, [
        Curve(LABELS.get(row, row), tuple(Place(BEGINNING + size, *by_size[size].f1) for size in sorted(by_size)))
        for row, by_size in each.by_row.items()
    ]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="a data set's folder; may be repeated"
    )
    parser.add_argument("--split", default="test", help="what F1 is measured on: test, or dev")
    parser.add_argument("--limit", type=int, default=150, help="sentences of it, drawn by the seed 0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="corrections, ascending")
    parser.add_argument("--train", type=int, default=300, help="the most sentences of train: pools and stream")
    parser.add_argument("--dev", type=int, default=180, help="sentences of dev in the stream")
    parser.add_argument("--held-out", type=int, default=100, help="others of dev, for --split dev")
    parser.add_argument("--members", default="", metavar="NAME,NAME", help="of the default ensemble; all by default")
    parser.add_argument("--only", default=",".join(LABELS), metavar="ROW,ROW", help=f"of {', '.join(LABELS)}")
    parser.add_argument("--batch", type=int, default=16, help="sentences that go through the stages together")
    parser.add_argument("--folder", type=Path, help="where what is read is kept (default: in the cache folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def main(choices: Mapping[str, Choose | None] | None = None) -> None:
    by_row = choices or {"queue": by_queue, "random": None}
    parser = arguments()
    options = parser.parse_args()
    rows = options.only.split(",")
    if unknown := [row for row in rows if row not in by_row]:
        parser.error(f"--only {', '.join(unknown)}: no such row; there are: {', '.join(by_row)}")
    ensemble: dict[str, Any] = {"preset": "default"}
    if options.members:
        ensemble |= {"members": options.members.split(","), "verifier": None}
    settings = settings_of(Row("teach", "teach", "", {"ensemble": ensemble}))
    folder = options.folder or default_cache_dir() / FOLDER
    sizes = [int(size) for size in options.sizes.split(",")]
    try:
        materials = [
            material_of(
                path,
                split=options.split,
                limit=options.limit,
                train=options.train,
                dev=options.dev,
                held_out=options.held_out,
                seeds=options.seeds,
            )
            for path in options.data
        ]
    except El4nerError as error:
        parser.error(str(error))
    try:
        work_offline_if_local(settings)
        with TerminalProgress() as progress, ExitStack() as models:
            engines, _ = models.enter_context(load_models(settings, cache_dir=default_cache_dir(), progress=progress))
            measured = []
            for material in materials:
                by_engine = kept(engines, folder / "states", material.dataset.pool.name)
                read(settings, by_engine, material, folder / "read", progress)
                simulation = Simulation(settings, by_engine, material, folder, options.batch)
                measured.append(Figures(material))
                for row in rows:
                    tell(f"{row} on {material.name} …")
                    began = time.perf_counter()
                    measured[-1].by_row[row] = simulation.row(sizes, by_row[row])
                    tell(f"  {time.perf_counter() - began:.0f} s")
                    write(measured, options)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    print(markdown(measured))


def write(measured: Sequence[Figures], options: argparse.Namespace) -> None:
    """What is measured so far, wherever it is wanted."""
    if options.json is not None:
        figures = {each.material.name: as_json(each) for each in measured}
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text(markdown(measured), encoding="utf-8")
    whole = [each for each in measured if len(each.by_row) == len(measured[0].by_row)]
    if options.svg is not None:
        options.svg.write_text(render_curves([curves(each) for each in whole]), encoding="utf-8")


if __name__ == "__main__":
    main()
