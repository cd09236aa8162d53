"""The paper's claim at our sizes: union, vote and self-validation, each on and off, against the best member alone.

    python bench/paper_scale.py --data FOLDER [--data FOLDER …] [--split test] [--limit 60] [--chunk 15] [--seed 0]
                                [--members NAME,NAME,NAME] [--rows parts|pool-spans] [--pool N] [--answers FILE]
                                [--dtype int8] [--tallies FILE] [--json OUT] [--markdown OUT]

Everything is in paper mode. The members are Gemma 3 270M and Qwen2.5-Coder 0.5B and 1.5B (`bench/third_member.py`
makes the last two); the last one named is the verifier, and the *best* member of the rows with a part switched off.
`--rows pool-spans` compares `retrieval.pool_spans` instead: labelled, and by the models.

It takes hours on two cores: one to four minutes a sentence, by what the processor multiplies fast (`--dtype`). So every
answer is kept in a file (`--answers`), and a question that comes up in several rows is asked once. A killed run goes on
where it was, and a run without anything left to ask only counts. `--tallies` is a small file without texts: sentences
that it has are not asked about again, also on another machine, where the answers are not. Sentences go through **all**
rows in chunks, of each data set by turns, and the table is written anew after each chunk, so that what is there is
comparable at any time. Sentences are drawn by the seed; fewer of them are the first of more.

p compares with the member alone that did best on the same sentences, chosen after the fact, which favours that member
(with `--rows pool-spans`: with the first row).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from ablation.paper_rows import PaperRows, paper_rows, pool_span_rows  # noqa: E402
from ablation.remembering import Answers, RememberingEngine  # noqa: E402
from ablation.row_tallies import RowTallies, load_tallies, save_tallies  # noqa: E402
from smaller_pool import with_smaller_pool  # noqa: E402
from third_member import MEMBERS, third_member  # noqa: E402

from el4ner.config import PoolsSettings, Settings, load_settings  # noqa: E402
from el4ner.engines.base import Engine  # noqa: E402
from el4ner.engines.registry import load_engine  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.evaluation import Dataset, load_dataset  # noqa: E402
from el4ner.loader import pipeline_from  # noqa: E402
from el4ner.models.prepare import default_cache_dir, prepare  # noqa: E402
from el4ner.models.progress import Progress  # noqa: E402
from el4ner.pipeline import Pipeline  # noqa: E402
from el4ner.retrieval import SentenceTransformerEmbedder  # noqa: E402
from el4ner.serialize import fingerprint  # noqa: E402
from workers.cli.output import tell  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402

PACKAGED: Final = {"smollm2-135m": "packaged:smollm2-135m-instruct", "gemma3-270m": "packaged:gemma3-270m"}
PREFIX_CACHE_MB: Final = 768
"""For each member: few-shot prompts of a chunk stay, so that a row's validation finds what another row's has read."""
DEFAULT_MEMBERS: Final = "gemma3-270m,qwen2.5-coder-0.5b,qwen2.5-coder-1.5b"


def settings_for(members: Sequence[str], dtype: str, cache: Path, progress: Progress) -> Settings:
    """Paper mode with these members, the last one the verifier, in that number type; what is missing of them is made.

    Raises:
        ModelError, ConfigError: a member cannot be had.
    """
    models = {}
    for name in members:
        if name not in PACKAGED and name not in MEMBERS:
            raise El4nerError(f"--members {name}: there are {', '.join([*PACKAGED, *MEMBERS])}")
        source = PACKAGED.get(name) or str(third_member(MEMBERS[name], cache, progress).absolute())
        models[name] = {"source": source, "dtype": dtype, "prefix_cache_mb": PREFIX_CACHE_MB}
    overrides = {
        "ensemble": {"members": list(members), "verifier": members[-1]},
        "models": models,
        "method": {"mode": "paper", "repeats": "off"},
    }
    return load_settings(Settings, None, environ={}, overrides=overrides)


def drawn(dataset: Dataset, seed: int, pool: int | None) -> Dataset:
    """The sentences in an order of chance, so that the first of them are a sample, too; and at most ``pool`` sentences
    of the pool."""
    sentences = list(dataset.sentences)
    random.Random(seed).shuffle(sentences)
    return replace(with_smaller_pool(dataset, pool), sentences=tuple(sentences))


def fingerprint_of(dataset: Dataset, members: Sequence[str], options: argparse.Namespace) -> str:
    """Of all that decides a data set's answers, but the code."""
    return fingerprint(
        [[each.text, [[span.start, span.end, kind] for span, kind in each.spans]] for each in dataset.sentences],
        dataset.pool.fingerprint,
        *members,
        options.rows,
        options.dtype,
    )


def markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each data set."""
    parts = []
    for name, table in tables.items():
        parts += [
            f"**{name}**, {table['sentences']} sentences, {table['pool_sentences']} of the pool; differences are to "
            f"{table['rows'][table['reference']]['label']}",
            "",
            "| row | F1 (95 %) | difference | p | precision | recall | candidate recall |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for key, row in table["rows"].items():
            low, high = row["f1_ci"]
            p_value = "<0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}"
            own = [f"{row['difference'] * 100:+.1f}", p_value] if key != table["reference"] else "––"
            cells = [
                f"{row['f1'] * 100:.1f} ({low * 100:.1f}–{high * 100:.1f})",
                *own,
                *(f"{row[figure] * 100:.1f}" for figure in ("precision", "recall", "candidate_recall")),
            ]
            parts.append(f"| {row['label']} | " + " | ".join(cells).replace("-", "−") + " |")
        parts.append("")
    return "\n".join(parts)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a data set's folder; repeatable")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=60, help="sentences of each data set")
    parser.add_argument("--chunk", type=int, default=15, help="sentences that go through all rows together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", default=DEFAULT_MEMBERS, metavar="NAME,NAME", help="the last one verifies")
    parser.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32", "int8"),
        default="auto",
        help="number type of all members; name one for tallies that several machines add to",
    )
    parser.add_argument("--rows", choices=("parts", "pool-spans"), default="parts", help="what is compared")
    parser.add_argument("--pool", type=int, help="pool sentences of each data set (default: all)")
    parser.add_argument("--answers", type=Path, help="where answers are kept (default: in the cache folder)")
    parser.add_argument("--tallies", type=Path, help="counts of what is measured, to go on from")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def run(options: argparse.Namespace, engines: Mapping[str, RememberingEngine], settings: Settings) -> None:
    """Chunk by chunk, the data sets by turns."""
    cache = default_cache_dir()
    rows = (paper_rows if options.rows == "parts" else pool_span_rows)(settings.ensemble.members)
    with TerminalProgress() as progress:
        embedder = SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, cache, progress))
        prepared: dict[str, tuple[Dataset, PaperRows, RowTallies]] = {}
        for folder in options.data:
            # The whole split in an order of chance, so that a larger --limit goes on where a smaller one ended.
            dataset = drawn(load_dataset(folder, split=options.split), options.seed, options.pool)
            name = dataset.pool.name
            pools = PoolsSettings(default=name, paths={name: str(folder)})

            def make(
                changed: Settings, members: Mapping[str, Engine], dataset: Dataset = dataset, pools: Any = pools
            ) -> Pipeline:
                hosting = changed.model_copy(update={"pools": pools})
                return pipeline_from(hosting, members, {dataset.pool.name: dataset.pool}, embedder, cache_dir=cache)

            known = fingerprint_of(dataset, settings.ensemble.members, options)
            tallies = load_tallies(options.tallies, name, known, len(dataset.pool.sentences))
            prepared[name] = dataset, PaperRows(settings, engines, dataset, make), tallies
    tables: dict[str, Any] = {}
    for end in range(options.chunk, options.limit + options.chunk, options.chunk):
        for name, (dataset, measuring, tallies) in prepared.items():
            sentences = dataset.sentences[tallies.count : min(end, options.limit)]
            began, asked = time.perf_counter(), sum(engine.asked for engine in engines.values())
            measured = {}
            for row in rows if sentences else ():
                measured[row.key] = measuring.measured(row, sentences)
                new = sum(engine.asked for engine in engines.values()) - asked
                tell(
                    f"{name} {tallies.count}: {row.key}: {time.perf_counter() - began:.0f} s so far, {new} new answers"
                )
            tallies.add(measured)
            tables = {each: done.figures(rows) for each, (_, _, done) in prepared.items() if done.count}
            if options.tallies is not None:
                save_tallies(options.tallies, [done for _, _, done in prepared.values()])
            if options.json is not None:
                options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")
            if options.markdown is not None:
                options.markdown.write_text(markdown(tables), encoding="utf-8")
    print(markdown(tables))


def main() -> None:
    options = arguments().parse_args()
    cache = default_cache_dir()
    answers = Answers(options.answers or cache / "paper-scale" / "answers.sqlite")
    engines: dict[str, RememberingEngine] = {}
    try:
        with TerminalProgress() as progress:
            settings = settings_for(options.members.split(","), options.dtype, cache, progress)
            for name in settings.ensemble.members:
                loaded = load_engine(name, settings.models[name], cache_dir=cache, progress=progress)
                engines[name] = RememberingEngine(loaded, answers)
        run(options, engines, settings)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    finally:
        for engine in engines.values():
            engine.close()
        answers.close()


if __name__ == "__main__":
    main()
