"""Resident memory of one process: after it has loaded, and as it tags more and more documents of every kind.

    python bench/memory.py [--documents 1000] [--report-every 100] [--batch 16] [--ensemble default]
                           [--data FOLDER]... [--lines FILE]... [--json OUT]

Documents come by turns from each source: the shipped sample's news, the sentences of data sets (`--data`: a folder with
train, dev and test in CoNLL columns; train is one more pool) and log lines (`--lines`). Log lines are varied in
addresses, ports, process ids and times. `method.repeats` is off unless `--repeats` is given, so that every document is
asked about. Now and then a document is as long as thirty sentences.

RSS counts pages that are shared with other processes in full, PSS each sharer's part. "anonymous" is what no file
stands behind: memory that only this process has, and that the kernel cannot give to others. "peak" is the largest RSS
so far.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from el4ner.engines.torch.lean_transformers import leave_out_unused_parts
from workers.cli.settings import prepare_process

prepare_process()  # as the command line and the workers do
leave_out_unused_parts()

from log_rate import varied  # noqa: E402
from logs import read_lines  # noqa: E402
from tag import POOL, sample  # noqa: E402

from el4ner.config import Settings, load_settings  # noqa: E402
from el4ner.evaluation import load_dataset  # noqa: E402
from el4ner.loader import load_pipeline  # noqa: E402
from el4ner.tagger import Tagger  # noqa: E402
from el4ner.types import Document  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402

LONG: Final = 30
"""Sentences of a long document."""
LONG_EVERY: Final = 97
_SIZE = re.compile(r"^(\w+):\s+(\d+) kB", re.MULTILINE)


def memory() -> dict[str, float]:
    """Megabytes: see above. Linux only."""
    kilobytes = dict(_SIZE.findall(Path("/proc/self/smaps_rollup").read_text(encoding="ascii")))
    peak = dict(_SIZE.findall(Path("/proc/self/status").read_text(encoding="ascii")))["VmHWM"]
    return {
        "rss_mb": int(kilobytes["Rss"]) / 1024,
        "pss_mb": int(kilobytes["Pss"]) / 1024,
        "anonymous_mb": int(kilobytes["Anonymous"]) / 1024,
        "peak_mb": int(peak) / 1024,
    }


def documents(sources: Sequence[tuple[str, Sequence[str]]], count: int, seed: int = 0) -> Iterator[Document]:
    """``count`` of them, by turns from each source: (pool, texts), from which texts are drawn."""
    rng = random.Random(seed)
    turns = itertools.cycle(sources)
    for number in range(count):
        pool, texts = next(turns)
        chosen = rng.choices(texts, k=LONG if number % LONG_EVERY == LONG_EVERY - 1 else 1)
        yield Document(str(number), "\n".join(varied(text, rng) for text in chosen), pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--report-every", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--dtype", help="of all members (default: as configured)")
    parser.add_argument("--repeats", action="store_true", help="answer what was seen before from memory")
    parser.add_argument("--data", type=Path, action="append", default=[], help="a data set's folder; may be repeated")
    parser.add_argument("--lines", type=Path, action="append", default=[], help="a file of log lines; may be repeated")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets = {folder.resolve().name: folder for folder in options.data}
    sources = [(POOL, sample(200))]
    sources += [
        (name, [sentence.text for sentence in load_dataset(folder, split="dev").sentences])
        for name, folder in sets.items()
    ]
    sources += [("logs", read_lines(file, 2000)) for file in options.lines]
    paths = {"news": "shipped:news", "logs": "shipped:logs"} | {
        name: str(next(folder.glob("train.*"))) for name, folder in sets.items()
    }
    overrides: dict[str, Any] = {"ensemble": {"preset": options.ensemble}, "pools": {"paths": paths}}
    if not options.repeats:
        overrides["method"] = {"repeats": "off"}
    if options.dtype:
        members = load_settings(Settings, overrides=overrides).ensemble.members
        overrides["models"] = {name: {"dtype": options.dtype} for name in members}
    rows: list[dict[str, float]] = []

    def report(seen: int, began: float) -> None:
        rows.append({"documents": seen, **memory()})
        row = rows[-1]
        print(
            f"{seen:6} documents  RSS {row['rss_mb']:6.0f} MB  PSS {row['pss_mb']:6.0f}  anonymous "
            f"{row['anonymous_mb']:6.0f}  peak {row['peak_mb']:6.0f}  {time.perf_counter() - began:7.1f} s",
            flush=True,
        )

    with TerminalProgress() as progress:
        tagger = Tagger(load_pipeline(load_settings(Settings, overrides=overrides), progress=progress))
    began = time.perf_counter()
    report(0, began)
    with tagger:
        stream = documents(sources, options.documents)
        for number, _ in enumerate(tagger.tag(stream, batch_size=options.batch), start=1):
            if number % options.report_every == 0 or number == options.documents:
                report(number, began)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
