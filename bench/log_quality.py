"""How well log lines are tagged, by format: strict F1 on labelled lines of formats in the shipped pool and of others.

    python bench/log_quality.py [--half dev|test] [--format NAME]... [--data FILE] [--ensemble default] [--pool logs]
                                [--repeats off|exact|templates] [--order file|shuffled|rare-first] [--seed 0]
                                [--errors] [--json OUT]

`bench/data/logs/lines.jsonl` has the lines (`bench/log_lines.py` makes them). What is mended is mended by the half
`dev`; `test` has other phrasings and values. With `--repeats templates` lines are a stream, where the order counts:
`rare-first` begins with the lines whose values no other line has. `--errors` lists what was wrong.

`bench/data/logs/others.jsonl` (with `--data`) has lines of other formats by two other authors, halves `a` and `b`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from el4ner.evaluation.scoring import Labelled, f1_of, of_type, strict_tallies
from el4ner.tagger import Tagger
from el4ner.types import Document, DocumentCandidates

DATA = Path(__file__).parent / "data" / "logs" / "lines.jsonl"
BATCH = 16
Line = dict[str, Any]


def read(file: Path, half: str | None, formats: Sequence[str]) -> list[Line]:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if half in (None, line["half"]) and (not formats or line["format"] in formats)]


def ordered(lines: list[Line], order: str, seed: int) -> list[Line]:
    """As a stream. ``rare-first``: by how many lines have the rarest of a line's labelled surfaces."""
    if order == "file":
        return lines
    shuffled = random.Random(seed).sample(lines, len(lines))
    if order == "shuffled":
        return shuffled
    seen = Counter(surface for line in lines for surface in {span["text"] for span in line["spans"]})
    return sorted(shuffled, key=lambda line: min((seen[span["text"]] for span in line["spans"]), default=len(lines)))


def gold(line: Line) -> list[Labelled]:
    return [(span["start"], span["end"], span["type"]) for span in line["spans"]]


def tag(lines: Sequence[Line], options: argparse.Namespace) -> tuple[list[list[Labelled]], list[set[tuple[int, int]]]]:
    """What the ensemble finds in each line, and what was proposed there."""
    overrides = {"ensemble": {"preset": options.ensemble}, "method": {"repeats": options.repeats}}
    overrides["pools"] = {"paths": [str(options.pool)], "default": options.pool.name}
    if options.pool == Path("logs"):
        del overrides["pools"]
    with Tagger.from_config(overrides=overrides) as tagger:
        documents = [Document(str(n), line["text"], options.pool.name) for n, line in enumerate(lines)]
        clock = time.perf_counter()
        tagged = list(tagger.tag(documents, batch_size=BATCH))
        print(
            f"{len(lines)} lines, {len(lines) / (time.perf_counter() - clock):.1f} a second, {tagger.pipeline.repeats}"
        )
        proposed = [
            {(c.span.start, c.span.end) for s in result.sentences for c in s.candidates}
            for result in tagger.pipeline.extract(documents)
            if isinstance(result, DocumentCandidates)
        ]
    return [[(e.start, e.end, e.type) for e in document.entities] for document in tagged], proposed


def figures(
    right: Sequence[Sequence[Labelled]], found: Sequence[Sequence[Labelled]], proposed: Sequence[set[tuple[int, int]]]
) -> dict[str, Any]:
    tallies = strict_tallies(right, found)
    correct, predicted, wanted = (sum(each) for each in zip(*tallies, strict=True)) if tallies else (0, 0, 0)
    candidates = sum(span[:2] in spans for spans_of, spans in zip(right, proposed, strict=True) for span in spans_of)
    return {
        "lines": len(right),
        "entities": wanted,
        "precision": correct / predicted if predicted else 1.0,
        "recall": correct / wanted if wanted else 1.0,
        "f1": f1_of(correct, predicted, wanted),
        "candidate_recall": candidates / wanted if wanted else 1.0,
        "candidates_per_line": sum(map(len, proposed)) / len(proposed) if proposed else 0.0,
    }


def wrong(line: Line, found: list[Labelled], proposed: set[tuple[int, int]]) -> list[str]:
    """The line with its mistakes, or nothing."""
    right = gold(line)
    missed = [
        f"    missed {label}: {line['text'][start:end]!r}" + ("" if (start, end) in proposed else " (never proposed)")
        for start, end, label in right
        if (start, end, label) not in found
    ]
    surplus = [
        f"    {label} is none: {line['text'][start:end]!r}"
        for start, end, label in found
        if (start, end, label) not in right
    ]
    return [f"  {line['format']}: {line['text']}", *missed, *surplus] if missed or surplus else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--half", choices=["dev", "test", "a", "b"], help="of lines.jsonl, or of others.jsonl")
    parser.add_argument("--format", action="append", default=[], dest="formats", metavar="NAME")
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--pool", type=Path, default=Path("logs"), help="a pool's folder instead of the shipped one")
    parser.add_argument("--repeats", default="off", choices=["off", "exact", "templates"])
    parser.add_argument("--order", default="file", choices=["file", "shuffled", "rare-first"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = ordered(read(options.data, options.half, options.formats), options.order, options.seed)
    if not lines:
        parser.error("there are no such lines")
    found, proposed = tag(lines, options)
    right = [gold(line) for line in lines]
    if options.errors:
        for line, found_in_line, proposed_in_line in zip(lines, found, proposed, strict=True):
            print(
                "\n".join(wrong(line, found_in_line, proposed_in_line)), end="\n" if found_in_line != gold(line) else ""
            )
    groups: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        for group in (line["format"], "all seen" if line["seen"] else "all unseen", "all"):
            groups[group].append(index)
    results = {
        group: figures([right[i] for i in of], [found[i] for i in of], [proposed[i] for i in of])
        for group, of in sorted(groups.items(), key=lambda each: (each[0].startswith("all"), each[0]))
    }
    by_type = {
        label: figures(of_type(right, label), of_type(found, label), proposed)
        for label in sorted({label for line in right for *_, label in line})
    }
    for name, each in (results | by_type).items():
        print(
            f"{name:18} {each['lines']:4} lines {each['entities']:5} entities  P {each['precision']:.3f}  R "
            f"{each['recall']:.3f}  F1 {each['f1']:.3f}  proposed {each['candidate_recall']:.3f}"
        )
    print(f"candidates a line: {results['all']['candidates_per_line']:.1f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"formats": results, "types": by_type}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
