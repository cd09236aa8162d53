"""What each part of the method is worth: every row is the default with one thing changed, on labelled data sets.

    make bench-quality DATA="FOLDER FOLDER …" [ARGS="--limit 100"]
    python bench/quality.py --data FOLDER [--data FOLDER …] [--split test] [--limit N] [--slow-limit N]
                            [--paper-limit N] [--seed 0] [--third-member FILE] [--only ROW,ROW] [--fresh]
                            [--json OUT] [--html OUT] [--markdown OUT]
    python bench/quality.py --list

A folder has train, dev and test files in CoNLL columns, as for `el4ner eval`. Figures are strict F1 with a 95 %
bootstrap interval, its difference to the first row on the same sentences with a paired p-value, span F1, the expected
calibration error, seconds a sentence, and candidate recall. Rows that read each span once are measured on all sentences
(or `--limit`), those that ask in context or write on `--slow-limit` of them, paper mode on `--paper-limit`, by turns
with the reference, so that the ratio of their seconds is of one run. F1 of rows over other sentences does not compare;
the differences do, and choosing by many of them on a test split is choosing by luck.

Sentences are kept as `el4ner eval` keeps them: a killed run goes on where it was, and seconds are those of when a
sentence was measured (`--fresh` measures again). A pool's spans are read and its evidence is weighed when a row first
needs it, which takes minutes where members are asked in context (200 pool sentences for each such row). Output files
are written anew after every row. `bench/third_member.py` makes a file for `--third-member`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from ablation.figures import SkippedError  # noqa: E402
from ablation.measure import Bench, Options  # noqa: E402
from ablation.rows import REFERENCE, SPACY, Row, cost_of, rows_of, selected, settings_of  # noqa: E402
from ablation.show import Results, html, line, markdown, mean_of, shown  # noqa: E402

from el4ner.errors import El4nerError  # noqa: E402
from el4ner.models.prepare import default_cache_dir  # noqa: E402
from workers.cli.output import results, tell  # noqa: E402
from workers.cli.progress import Counter, TerminalProgress  # noqa: E402
from workers.cli.settings import work_offline_if_local  # noqa: E402

ORDER = ("cheap", "slow", "paper")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="a data set's folder; may be repeated")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="sentences of each data set, drawn by the seed (default: all)")
    parser.add_argument("--slow-limit", type=int, default=100, help="for rows that ask in context or write")
    parser.add_argument("--paper-limit", type=int, default=100, help="for paper mode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="sentences that go through the stages together")
    parser.add_argument("--ensemble", default="default", help="the preset of the reference")
    parser.add_argument("--third-member", type=Path, metavar="FILE", help="a configuration with one more member")
    parser.add_argument("--only", default="", metavar="ROW,ROW", help="these rows, and the reference")
    parser.add_argument("--list", action="store_true", help="name the rows, and stop")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """What each data set is called: its folder's name, with its parent's where that is not enough."""
    short = [folder.resolve().name for folder in folders]
    return {
        folder: name if short.count(name) == 1 else f"{folder.resolve().parent.name}/{name}"
        for folder, name in zip(folders, short, strict=True)
    }


def measure_all(bench: Bench, rows: Sequence[Row], names: dict[Path, str], write: Any) -> tuple[Results, bool]:
    """Cheap rows first. The table so far, in the rows' own order, is written after each; False if one has failed."""
    entries: dict[str, dict[str, Any]] = {}
    good = True
    for row in sorted(rows, key=lambda row: ORDER.index(cost_of(row))):
        entry: dict[str, Any] = {
            "key": row.key,
            "group": row.group,
            "label": row.label,
            "cost": cost_of(row),
            "overrides": row.overrides,
            "results": {},
            "notes": {},
        }
        for folder, name in names.items():
            tell(f"{row.key} on {name} …")
            began = time.perf_counter()
            try:
                entry["results"][name] = bench.measured(row, folder)
                results().print(line(row.label, name, entry["results"][name]))
            except SkippedError as skipped:
                entry["notes"][name] = f"skipped: {skipped}"
            except El4nerError as error:
                entry["notes"][name] = f"failed: {error}"
                good = False
            if name in entry["notes"]:
                tell(f"  {entry['notes'][name]}")
            tell(f"  {time.perf_counter() - began:.1f} s")
        entry["mean"] = mean_of(list(entry["results"].values()), len(names))
        entries[row.key] = entry
        write([entries[one.key] for one in rows if one.key in entries])
    return [entries[row.key] for row in rows], good


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    for name in ("limit", "slow_limit", "paper_limit", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        rows = rows_of(options.ensemble, options.third_member)
        chosen = selected(rows, [name.strip() for name in options.only.split(",") if name.strip()])
        if options.list:
            for row in rows:
                print(f"{row.key:24} {'free' if row.key == SPACY else cost_of(row):6} {row.label}")
            return
    except (El4nerError, ValueError) as error:
        parser.error(str(error))
    if not options.data:
        parser.error("give at least one data set: --data FOLDER (a folder with train, dev and test in CoNLL columns)")
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    cheap = options.limit
    limits = {
        "cheap": cheap,
        "slow": min(options.slow_limit, cheap or options.slow_limit),
        "paper": min(options.paper_limit, cheap or options.paper_limit),
    }
    names = names_of(list(dict.fromkeys(options.data)))
    for out in (options.json, options.html, options.markdown):
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)

    def write(found: Results) -> None:
        sets = list(names.values())
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if options.html is not None:
            options.html.write_text(html(found, sets), encoding="utf-8")
        if options.markdown is not None:
            options.markdown.write_text(markdown(found, sets), encoding="utf-8")

    what = Options(
        folders=list(names),
        split=options.split,
        seed=options.seed,
        batch=options.batch,
        limits=limits,
        cache=default_cache_dir(),
        reference=next(row for row in rows if row.key == REFERENCE),
        fresh=options.fresh,
    )
    for row in chosen:
        if row.overrides is not None:
            work_offline_if_local(settings_of(row))
    bench = Bench(what, TerminalProgress, Counter)
    try:
        found, good = measure_all(bench, chosen, names, write)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    finally:
        bench.close()
    results().print(shown(found, list(names.values())))
    if not good:
        sys.exit("error: a row has failed (see above)")


if __name__ == "__main__":
    main()
