"""What scale brings: F1 against parameters, for members alone and for ensembles of them, by the default method.

    python bench/scale.py --data FOLDER [--data FOLDER …] [--split test] [--limit 100] [--pool N] [--seed 0]
                          [--only ROW,ROW] [--json OUT] [--markdown OUT]
    python bench/scale.py --list

Members are SmolLM2 135M, Gemma 3 270M and Qwen2.5-Coder 0.5B and 1.5B (`bench/third_member.py` makes the last two).
Every row sees the same sentences, drawn by the seed, and the same pool: the train split, or `--pool` sentences of it,
drawn by a hash of their text.

F1 is strict, with a 95 % bootstrap interval. An ensemble is compared with the one of its members that did best alone on
the same sentences, chosen after the fact, which favours the member; p is by paired approximate randomisation. Seconds
are the processor's, summed over its cores, so that they say the same on a machine that is shared: on two idle cores a
sentence takes about half of that. What a member has read for one row is not read again for another, but counted there.

A killed run goes on where it was: what was measured is kept in `evaluations-scale` in the cache folder, and what
members have read of pools in `evidence`. The table is written anew after each row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from ablation.remembering import RememberingStates  # noqa: E402
from smaller_pool import with_smaller_pool  # noqa: E402
from third_member import MEMBERS, third_member  # noqa: E402

from el4ner.code_fingerprint import code_fingerprint  # noqa: E402
from el4ner.config import PoolsSettings, Settings, load_settings  # noqa: E402
from el4ner.engines.base import StateEngine  # noqa: E402
from el4ner.engines.registry import load_engine  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.evaluation import Dataset, EvaluationResult, compare_with, evaluate, load_dataset  # noqa: E402
from el4ner.loader import pipeline_from  # noqa: E402
from el4ner.models.prepare import default_cache_dir  # noqa: E402
from el4ner.models.progress import Progress  # noqa: E402
from workers.cli.output import tell  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402

FOLDER: Final = "evaluations-scale"
SMOL, GEMMA, HALF, LARGE = "smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
PACKAGED: Final = {SMOL: "packaged:smollm2-135m-instruct", GEMMA: "packaged:gemma3-270m"}
PARAMETERS: Final = {SMOL: 134_515_008, GEMMA: 268_098_176, HALF: 630_167_424, LARGE: 1_777_088_000}
"""Of each member. Qwen's files have an output layer of its own beside the embedding."""
ENSEMBLES: Final = (
    (SMOL,),
    (GEMMA,),
    (SMOL, GEMMA),
    (HALF,),
    (GEMMA, HALF),
    (SMOL, GEMMA, HALF),
    (LARGE,),
    (SMOL, GEMMA, LARGE),
    (HALF, LARGE),
    (GEMMA, HALF, LARGE),
    (SMOL, GEMMA, HALF, LARGE),
)


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """An ensemble, or one member alone."""

    members: tuple[str, ...]

    @property
    def key(self) -> str:
        """What ``--only`` takes: sizes."""
        return "+".join(_size(name) for name in self.members)

    @property
    def parameters(self) -> int:
        """Of all members together."""
        return sum(PARAMETERS[name] for name in self.members)


ROWS: Final = tuple(ScaleRow(members) for members in ENSEMBLES)


class Scale:
    """Measures rows. One owner thread; engines are loaded when a row first needs them, and closed at the end."""

    def __init__(self, cache: Path, split: str, limit: int, pool: int | None, seed: int) -> None:
        code_fingerprint()  # what is measured is kept under the code that is loaded now, whatever changes on disk
        self._cache = cache
        self._split, self._limit, self._pool, self._seed = split, limit, pool, seed
        self._engines: dict[str, RememberingStates] = {}

    def close(self) -> None:
        """Give the models' memory back."""
        for engine in self._engines.values():
            engine.close()

    def dataset(self, folder: Path) -> Dataset:
        """The sentences, and the part of the pool that all rows have."""
        dataset = load_dataset(folder, split=self._split, limit=self._limit, seed=self._seed)
        return with_smaller_pool(dataset, self._pool)

    def measured(self, row: ScaleRow, dataset: Dataset, progress: Progress) -> EvaluationResult:
        """The row on the data set's sentences; seconds are the processor's."""
        settings = self._settings(row, dataset, progress)
        engines = {name: self._engine(name, settings, progress) for name in row.members}
        pools = {dataset.pool.name: dataset.pool}
        pipeline = pipeline_from(settings, engines, pools, None, cache_dir=self._cache, progress=progress)

        def seconds() -> float:
            return time.process_time() + sum(engine.saved for engine in engines.values())

        return evaluate(dataset, pipeline, clock=seconds, batch_size=16, cache=self._cache / FOLDER)

    def _settings(self, row: ScaleRow, dataset: Dataset, progress: Progress) -> Settings:
        overrides = {
            "ensemble": {"members": list(row.members), "verifier": None},
            "models": {name: {"source": self._source(name, progress)} for name in row.members},
            "method": {"repeats": "off"},
            "retrieval": {"kind": "none"},  # no prompt shows demonstrations
        }
        settings = load_settings(Settings, None, environ={}, overrides=overrides)
        pools = PoolsSettings(default=dataset.pool.name, paths={dataset.pool.name: dataset.name})
        return settings.model_copy(update={"pools": pools})

    def _source(self, name: str, progress: Progress) -> str:
        return PACKAGED.get(name) or str(third_member(MEMBERS[name], self._cache, progress).absolute())

    def _engine(self, name: str, settings: Settings, progress: Progress) -> RememberingStates:
        if name not in self._engines:
            loaded = load_engine(name, settings.models[name], cache_dir=self._cache, progress=progress)
            assert isinstance(loaded, StateEngine)
            self._engines[name] = RememberingStates(loaded)
        return self._engines[name]


def figures(row: ScaleRow, results: Mapping[str, EvaluationResult]) -> dict[str, Any]:
    """What the table says of a row, given those of its members alone as far as they are measured."""
    result = results[row.key]
    known = result.as_json()
    keys = ("f1", "f1_ci", "precision", "recall", "span_f1", "candidate_recall", "ece", "sentences")
    found = {name: known[name] for name in keys} | {"cpu_seconds_per_sentence": known["seconds_per_sentence"]}
    alone = [_size(name) for name in row.members if _size(name) in results]
    if len(row.members) > 1 and alone:
        best = max(alone, key=lambda key: results[key].scores.strict.f1)
        compared = compare_with(result, results[best].records, name=best).comparison
        assert compared is not None
        found["best_member"] = best
        found["difference"], found["p_value"] = compared.difference, compared.p_value
        found["difference_ci"] = compared.difference_ci
    return found


def markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """One table: a row for each ensemble, F1 and its difference to the best member for each data set."""
    parts = [
        "| members | parameters | " + " | ".join(f"{name} F1 | Δ best member (p)" for name in tables) + " | CPU s |"
    ]
    parts.append("|---|---:|" + "---:|---:|" * len(tables) + "---:|")
    for row in ROWS:
        if not any(row.key in table for table in tables.values()):
            continue
        cells, seconds = [], []
        for table in tables.values():
            one = table.get(row.key)
            if one is None:
                cells += ["–", "–"]
                continue
            low, high = one["f1_ci"]
            cells.append(f"{one['f1'] * 100:.1f} ({low * 100:.1f}–{high * 100:.1f})")
            cells.append(_compared(one))
            seconds.append(f"{one['cpu_seconds_per_sentence']:.2f}")
        parts.append(
            f"| {row.key} | {row.parameters / 1e6:,.0f}M | " + " | ".join([*cells, " / ".join(seconds)]) + " |"
        )
    return "\n".join(parts) + "\n"


def _compared(found: Mapping[str, Any]) -> str:
    if "difference" not in found:
        return "–"
    p_value = "<0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}"
    return f"{found['difference'] * 100:+.1f} ({p_value})".replace("-", "−")


def _size(name: str) -> str:
    return name.rpartition("-")[2].upper()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="a data set's folder; repeatable")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=100, help="sentences of each data set")
    parser.add_argument("--pool", type=int, help="pool sentences of each data set (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="ROW,ROW", help="these rows, such as 270M,135M+270M")
    parser.add_argument("--list", action="store_true", help="name the rows, and stop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def run(scale: Scale, rows: Sequence[ScaleRow], options: argparse.Namespace) -> str:
    """Row by row, each on all data sets. Returns the table."""
    datasets = {folder.resolve().name: scale.dataset(folder) for folder in options.data}
    results: dict[str, dict[str, EvaluationResult]] = {name: {} for name in datasets}
    tables: dict[str, dict[str, Any]] = {name: {} for name in datasets}
    for row in rows:
        for name, dataset in datasets.items():
            began = time.perf_counter()
            with TerminalProgress() as progress:
                results[name][row.key] = scale.measured(row, dataset, progress)
            tables[name][row.key] = figures(row, results[name])
            f1 = tables[name][row.key]["f1"]
            tell(f"{row.key} on {name}: F1 {f1 * 100:.1f}, after {time.perf_counter() - began:.0f} s")
            if options.json is not None:
                options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")
            if options.markdown is not None:
                options.markdown.write_text(markdown(tables), encoding="utf-8")
    return markdown(tables)


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            print(f"{row.key:24} {row.parameters / 1e6:,.0f}M  {', '.join(row.members)}")
        return
    only = [key.strip() for key in options.only.split(",") if key.strip()]
    unknown = sorted(set(only) - {row.key for row in ROWS})
    if unknown:
        parser.error(f"--only {', '.join(unknown)}: no such row; there are: {', '.join(row.key for row in ROWS)}")
    if not options.data:
        parser.error("give at least one data set: --data FOLDER (a folder with train, dev and test in CoNLL columns)")
    scale = Scale(default_cache_dir(), options.split, options.limit, options.pool, options.seed)
    try:
        print(run(scale, [row for row in ROWS if not only or row.key in only], options))
    except El4nerError as error:
        sys.exit(f"error: {error}")
    finally:
        scale.close()


if __name__ == "__main__":
    main()
