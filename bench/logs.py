"""A log file through the tagger, a line a document: lines per second, how much was a repeat, and what repeats change.

    python bench/logs.py FILE [--lines N] [--repeats off|exact|templates] [--ensemble NAME] [--json OUT]
                              [--compare] [--compare-lines M] [--spread]

`--compare` tags M lines again with repeats off: the first M, or with `--spread` M that are spread evenly over the file.
Each of them is held against what the run had made of it; the models' own mistakes do not count, only what repeats
change. (Nothing of the ensemble `instant`, whose answers are noise.) Loading models is not part of any time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from el4ner.engines.base import Engine
from el4ner.tagger import Tagger
from el4ner.types import Document, TaggedDocument

POOL = "logs"
BATCH = 64  # lines: few of a batch reach the models, so small batches leave their passes empty
Labels = set[tuple[int, int, str]]


class Asked:
    """Counts what an engine is asked from now on, whoever asks it: a pipeline's evidence holds its engines too."""

    def __init__(self, engine: Engine) -> None:
        self.calls = 0
        self.questions = 0
        for name in ("generate", "score", "states"):
            if hasattr(engine, name):
                setattr(engine, name, self._counted(getattr(engine, name)))

    def _counted(self, method: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
        def counted(requests: Sequence[Any]) -> Any:
            self.calls += 1
            self.questions += len(requests)
            return method(requests)

        return counted


def read_lines(file: Path, most: int | None) -> list[str]:
    """Lines with something in them. What is no UTF-8 is replaced: it is the tagging that is measured."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        lines = [line.rstrip("\r\n") for line in opened if line.strip()]
    return lines[:most]


def tag(lines: Sequence[str], repeats: str, ensemble: str) -> tuple[list[TaggedDocument], dict[str, Any]]:
    """The lines tagged by a pipeline of their own, and what that took."""
    overrides = {"ensemble": {"preset": ensemble}, "method": {"repeats": repeats}}
    with Tagger.from_config(overrides=overrides) as tagger:
        pipeline = tagger.pipeline
        asked = {name: Asked(engine) for name, engine in pipeline.engines.items()}
        clock = time.perf_counter()
        documents = [Document(str(number), line, POOL) for number, line in enumerate(lines)]
        tagged = list(tagger.tag(documents, batch_size=BATCH))
        seconds = time.perf_counter() - clock
        counts = {stage: {"hits": c.hits, "misses": c.misses} for stage, c in pipeline.repeats.items()}
    return tagged, {
        "lines": len(lines),
        "seconds": seconds,
        "lines_per_second": len(lines) / seconds,
        "repeats": counts,
        "models": {name: {"calls": a.calls, "questions": a.questions} for name, a in asked.items()},
        "entities": dict(Counter(entity.type for document in tagged for entity in document.entities).most_common()),
    }


def labels(document: TaggedDocument) -> Labels:
    return {(entity.start, entity.end, entity.type) for entity in document.entities}


def agreement(run: Sequence[TaggedDocument], plain: Sequence[TaggedDocument]) -> dict[str, Any]:
    """Of the run with the plain one, which is taken for right."""
    pairs = [(labels(one), labels(other)) for one, other in zip(run, plain, strict=True)]
    both = sum(len(one & other) for one, other in pairs)
    found, right = (sum(map(len, side)) for side in zip(*pairs, strict=True))
    precision = both / found if found else float(not right)
    recall = both / right if right else float(not found)
    return {
        "lines": len(pairs),
        "equal_lines": sum(one == other for one, other in pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }


def report(summary: dict[str, Any], repeats: str, ensemble: str) -> None:
    print(f"{summary['lines']} lines, ensemble {ensemble}, repeats {repeats}")
    print(f"  {summary['lines_per_second']:.1f} lines/s ({summary['seconds']:.1f} s)")
    for stage, counts in summary["repeats"].items() if repeats != "off" else ():
        print(f"  {stage}: {counts['hits']} hits, {counts['misses']} misses")
    for name, asked in summary["models"].items():
        print(f"  {name}: {asked['calls']} calls, {asked['questions']} questions")
    print("  entities: " + (", ".join(f"{count} {name}" for name, count in summary["entities"].items()) or "none"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--repeats", default="templates", choices=["off", "exact", "templates"])
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--compare-lines", type=int, default=200)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = read_lines(options.file, options.lines)
    if not lines:
        parser.error(f"{options.file} has no lines")
    tagged, summary = tag(lines, options.repeats, options.ensemble)
    report(summary, options.repeats, options.ensemble)
    if options.compare:
        most = max(1, min(options.compare_lines, len(lines)))
        chosen = [i * len(lines) // most if options.spread else i for i in range(most)]
        plain, without = tag([lines[i] for i in chosen], "off", options.ensemble)
        found = agreement([tagged[i] for i in chosen], plain)
        summary |= {"plain": without, "agreement": found}
        report(without, "off", options.ensemble)
        where = "spread evenly" if options.spread else "from the beginning"
        print(f"agreement on {most} lines, {where}: {found['equal_lines']} exactly equal")
        print(f"  entities: precision {found['precision']:.3f}, recall {found['recall']:.3f}, F1 {found['f1']:.3f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"file": options.file.name, **summary}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
