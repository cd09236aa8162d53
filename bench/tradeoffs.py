"""Processor seconds a sentence against F1: fewer layers, states of the middle alone, adaptive members, shorter prompts.

    python bench/tradeoffs.py --data FOLDER [--data FOLDER …] [--split dev] [--limit 60] [--pool 200] [--seed 0]
                              [--only KEY,KEY] [--json OUT] [--svg OUT] [--markdown OUT]

A folder has train, dev and test in CoNLL columns. All rows are over the same sentences and the same pool: at most
`--pool` sentences of train, drawn by a hash of their text. Members with fewer layers are made here: the first ones of
each, and the model's own last norm behind them; their "middle" is the middle of what is left.

Seconds are the processor's, summed over its cores, in batches of 16. F1 is strict, with a 95 % bootstrap interval; the
difference to the default is tested by paired approximate randomisation. Everything measured is kept; a killed run goes
on. Output files are written anew after every row.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

import numpy as np  # noqa: E402
from ablation.remembering import RememberingStates  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from scale import GEMMA, PACKAGED, SMOL  # noqa: E402
from smaller_pool import with_smaller_pool  # noqa: E402
from typing_extensions import override  # noqa: E402

from el4ner.code_fingerprint import code_fingerprint  # noqa: E402
from el4ner.config import PoolsSettings, Settings, load_settings  # noqa: E402
from el4ner.engines.base import StateEngine, StateRequest, StateResult  # noqa: E402
from el4ner.engines.registry import load_engine  # noqa: E402
from el4ner.engines.wrapped import WrappedEngine  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.evaluation import Dataset, EvaluationResult, compare_with, evaluate, load_dataset  # noqa: E402
from el4ner.evaluation.curve_report import render_curves  # noqa: E402
from el4ner.evaluation.plots import Curve, Place  # noqa: E402
from el4ner.loader import pipeline_from  # noqa: E402
from el4ner.models.prepare import default_cache_dir, prepare  # noqa: E402
from el4ner.models.progress import Progress  # noqa: E402
from workers.cli.output import tell  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402

FOLDER: Final = "evaluations-tradeoffs"
BOTH: Final = (SMOL, GEMMA)
_TYPE: Final = re.compile(r"^- (.*?): .*$", re.MULTILINE)
_TICKS: Final = (50, 100, 150, 200, 300, 400, 600)


@dataclass(frozen=True)
class Variant:
    """``curve``: variants of one curve in the plot. ``layers``: the share of each member's that it keeps. ``system``:
    what becomes of the prompts' beginning. ``middle``: the middle layer's states stand for the last one's, too."""

    key: str
    curve: str
    label: str
    members: tuple[str, ...] = BOTH
    layers: float = 1.0
    adaptive: bool = False
    middle: bool = False
    system: Callable[[str], str] | None = None


LAYERS: Final = "all, 3/4, 1/2 of the layers"
PROMPTS: Final = "no descriptions; no list of types"
ALONE: Final = "Gemma 3 alone; SmolLM2 alone"
VARIANTS: Final = (
    Variant("default", LAYERS, "the default: both members, all layers"),
    Variant("adaptive", "adaptive members", "the second member where the first is unsure", adaptive=True),
    Variant("gemma", ALONE, "Gemma 3 270M alone", members=(GEMMA,)),
    Variant("smol", ALONE, "SmolLM2 135M alone", members=(SMOL,)),
    Variant("middle", "states of the middle alone", "states of the middle alone", middle=True),
    Variant("half", LAYERS, "the first half of the layers", layers=1 / 2),
    Variant("names", PROMPTS, "types without descriptions", system=lambda text: _TYPE.sub(r"- \1", text)),
    Variant("no-list", PROMPTS, "no list of types", system=lambda text: ""),
    Variant("three-quarters", LAYERS, "the first three quarters of the layers", layers=3 / 4),
)


class Changed(WrappedEngine):
    """An engine that is asked something else by a variant."""

    def __init__(self, engine: StateEngine, variant: Variant) -> None:
        super().__init__(engine)
        self._variant = variant

    @property
    @override
    def fingerprint(self) -> str:
        return f"{super().fingerprint}-tradeoffs-{self._variant.key}"

    @property
    @override
    def states_fingerprint(self) -> str:
        return f"{super().states_fingerprint}-tradeoffs-{self._variant.key}"

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        assert isinstance(self._engine, StateEngine)
        change = self._variant.system
        if change is not None:
            requests = [
                replace(each, prompt=replace(each.prompt, system=change(each.prompt.system))) for each in requests
            ]
        if not self._variant.middle:
            return self._engine.states(requests)
        results = self._engine.states([replace(each, middle_only=True) for each in requests])
        return [replace(each, states=np.repeat(each.states[:, :1], 2, axis=1)) for each in results]


class Tradeoffs:
    """Measures variants. Engines are loaded when a variant first needs them, and closed at the end."""

    def __init__(self, cache: Path, options: argparse.Namespace) -> None:
        code_fingerprint()  # what is measured is kept under the code that is loaded now, whatever changes on disk
        self._cache = cache
        self._options = options
        self._engines: dict[tuple[str, float], RememberingStates] = {}

    def close(self) -> None:
        """Give the models' memory back."""
        for engine in self._engines.values():
            engine.close()

    def dataset(self, folder: Path) -> Dataset:
        """The sentences, and the part of the pool that all variants have."""
        options = self._options
        dataset = load_dataset(folder, split=options.split, limit=options.limit, seed=options.seed)
        return with_smaller_pool(dataset, options.pool)

    def measured(self, variant: Variant, dataset: Dataset, progress: TerminalProgress) -> EvaluationResult:
        """The variant on the data set's sentences."""
        overrides = {
            "ensemble": {"members": list(variant.members), "verifier": None},
            "models": {name: {"source": self._source(name, variant.layers, progress)} for name in variant.members},
            "method": {"repeats": "off", "adaptive": variant.adaptive},
            "retrieval": {"kind": "none"},
        }
        settings = load_settings(Settings, None, environ={}, overrides=overrides)
        pools = PoolsSettings(default=dataset.pool.name, paths={dataset.pool.name: dataset.name})
        settings = settings.model_copy(update={"pools": pools})
        read = {name: self._engine(name, variant.layers, settings, progress) for name in variant.members}
        changes = variant.middle or variant.system is not None
        engines: dict[str, StateEngine] = {
            name: Changed(engine, variant) if changes else engine for name, engine in read.items()
        }
        if variant.adaptive:  # a prompt costs the same for one span as for ten: remembered spans' shares do not say it
            engines = {name: engine.inner for name, engine in read.items()}
        pipeline = pipeline_from(
            settings, engines, {dataset.pool.name: dataset.pool}, None, cache_dir=self._cache, progress=progress
        )

        def seconds() -> float:
            return time.process_time() + sum(engine.saved for engine in read.values())

        kept = self._cache / FOLDER
        return evaluate(dataset, pipeline, clock=seconds, batch_size=16, cache=kept, fresh=variant.adaptive)

    def _source(self, name: str, share: float, progress: TerminalProgress) -> str:
        return PACKAGED[name] if share == 1 else str(shortened(PACKAGED[name], share, self._cache, progress))

    def _engine(self, name: str, share: float, settings: Settings, progress: TerminalProgress) -> RememberingStates:
        if (name, share) not in self._engines:
            loaded = load_engine(name, settings.models[name], cache_dir=self._cache, progress=progress)
            assert isinstance(loaded, StateEngine)
            self._engines[name, share] = RememberingStates(loaded)
        return self._engines[name, share]


def shortened(source: str, share: float, cache: Path, progress: Progress) -> Path:
    """The folder of a model that has the first layers of ``source``."""
    folder = prepare(source, cache, progress)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = round(config["num_hidden_layers"] * share)
    short = cache / "models" / f"{folder.name}-first-{layers}"
    if short.exists():
        return short
    made = short.with_name(short.name + ".new")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(folder, made, ignore=shutil.ignore_patterns("*.safetensors"))
    config["num_hidden_layers"] = layers
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:layers]
    (made / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for path in folder.glob("*.safetensors"):
        weights = {
            name: weight
            for name, weight in load_file(path).items()
            if (number := re.search(r"\blayers\.(\d+)\.", name)) is None or int(number[1]) < layers
        }
        save_file(weights, made / path.name, metadata={"format": "pt"})
    made.rename(short)
    return short


Table = dict[str, dict[str, dict[str, Any]]]
"""Figures by data set and variant."""


def figures(result: EvaluationResult, default: EvaluationResult) -> dict[str, Any]:
    """What is kept of a row."""
    known = result.as_json()
    row = {name: known[name] for name in ("f1", "f1_ci", "sentences", "seconds_per_sentence")}
    compared = compare_with(result, default.records, name="default").comparison
    assert compared is not None
    return {**row, "difference": compared.difference, "p_value": compared.p_value}


def markdown(tables: Table) -> str:
    """A row for each variant."""
    lines = [
        "| | " + " | ".join(f"{name}: F1 (Δ, p) | CPU s" for name in tables) + " |",
        "|---|" + "---:|---:|" * len(tables),
    ]
    for variant in VARIANTS:
        cells = []
        for table in tables.values():
            row = table.get(variant.key)
            if row is None:
                cells += ["–", "–"]
                continue
            compared = "" if variant.key == "default" else f" ({row['difference'] * 100:+.1f}, {row['p_value']:.2f})"
            cells += [f"{row['f1'] * 100:.1f}{compared}".replace("-", "−"), f"{row['seconds_per_sentence']:.3f}"]
        if set(cells) != {"–"}:
            lines.append(f"| {variant.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(tables: Table) -> str:
    """A field for each data set: milliseconds to the right, F1 upwards."""
    fields = []
    for name, table in tables.items():
        curves = []
        for label in dict.fromkeys(variant.curve for variant in VARIANTS):
            rows = [table[variant.key] for variant in VARIANTS if variant.curve == label and variant.key in table]
            places = [Place(round(row["seconds_per_sentence"] * 1e3), row["f1"], tuple(row["f1_ci"])) for row in rows]
            curves.append(Curve(label, tuple(sorted(places, key=lambda place: place.size))))
        fields.append((name, curves))
    return render_curves(fields, unit="ms of processor time a sentence", ticks=_TICKS)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a data set's folder; repeatable")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=60, help="sentences of each data set")
    parser.add_argument("--pool", type=int, default=200, help="most pool sentences of each data set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="KEY,KEY", help=", ".join(each.key for each in VARIANTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(","))) or {variant.key for variant in VARIANTS}
    if unknown := wanted - {variant.key for variant in VARIANTS}:
        parser.error(f"--only {', '.join(unknown)}: there are {', '.join(variant.key for variant in VARIANTS)}")
    bench = Tradeoffs(default_cache_dir(), options)
    try:
        datasets = {folder.resolve().name: bench.dataset(folder) for folder in options.data}
        tables: Table = {name: {} for name in datasets}
        defaults: dict[str, EvaluationResult] = {}
        for variant in VARIANTS:
            if variant.key not in {*wanted, "default"}:
                continue
            for name, dataset in datasets.items():
                with TerminalProgress() as progress:
                    result = bench.measured(variant, dataset, progress)
                row = tables[name][variant.key] = figures(result, defaults.setdefault(name, result))
                tell(f"{variant.key} on {name}: F1 {row['f1'] * 100:.1f}, {row['seconds_per_sentence']:.3f} s")
            if options.json is not None:
                options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")
            if options.markdown is not None:
                options.markdown.write_text(markdown(tables), encoding="utf-8")
            if options.svg is not None:
                options.svg.write_text(picture(tables), encoding="utf-8")
        print(markdown(tables))
    except El4nerError as error:
        sys.exit(f"error: {error}")
    finally:
        bench.close()


if __name__ == "__main__":
    main()
