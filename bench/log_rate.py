"""Log lines of known templates: lines a second in one thread, the stages one after the other beside it, and memory.

    python bench/log_rate.py FILE... [--lines 20000] [--first 2000] [--batch 64] [--ensemble default] [--turns]
                             [--report-every N] [--json OUT]

A file's lines are gone through again and again, each time with other addresses, ports, process ids and times, so that
hardly a text is seen twice. The first lines are not counted. Of the others it prints

- lines a second, as they come: with what is asked about templates that are new, rare or due for a check;
- lines a second in batches of which nobody was asked: what known lines cost;
- the same by processor time, which depends less on who else uses the machine;
- with `--turns`, every other batch by the stages one after the other, as the stream's workers call them, on the same
  pipeline and its memories. The ratio is of batches of which nobody was asked, by processor time.

`--report-every` prints the resident memory by the way. Loading models is no part of any time.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logs import POOL, read_lines

from el4ner.assemble import assemble_by
from el4ner.errors import DocumentError
from el4ner.pipeline import Pipeline
from el4ner.tagger import Tagger
from el4ner.types import Document

ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
CLOCK = re.compile(r"(?<![\d:])\d{1,2}:\d{2}:\d{2}(?![\d:])")
PID = re.compile(r"(?<=\[)\d+(?=\])")
PORT = re.compile(r"(?<=port )\d+|(?<=:)\d{4,5}(?!\d)")


def varied(line: str, rng: random.Random) -> str:
    """The line as it may be written at another time, by another process, about another peer."""
    line = CLOCK.sub(lambda _: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}", line)
    line = ADDRESS.sub(lambda _: ".".join(str(rng.randint(1, 254)) for _ in range(4)), line)
    line = PID.sub(lambda _: str(rng.randint(300, 32_000)), line)
    return PORT.sub(lambda _: str(rng.randint(1_024, 65_000)), line)


def batches(lines: Sequence[str], first: int, last: int, size: int, rng: random.Random) -> Iterator[list[Document]]:
    """Lines ``first`` to ``last`` of the stream."""
    for start in range(first, last, size):
        places = range(start, min(start + size, last))
        yield [Document(str(place), varied(lines[place % len(lines)], rng), POOL) for place in places]


@dataclass(slots=True)
class Way:
    """What one way through the stages took."""

    lines: int = 0
    asked: int = 0
    known: int = 0
    wall: float = 0.0
    processor: float = 0.0
    known_wall: float = 0.0
    known_processor: float = 0.0

    def figures(self) -> dict[str, float]:
        return {
            "lines": self.lines,
            "asked": self.asked,
            "lines_per_second": self.lines / self.wall,
            "lines_per_processor_second": self.lines / self.processor,
            "known_lines_per_second": self.known / self.known_wall if self.known else 0.0,
            "known_lines_per_processor_second": self.known / self.known_processor if self.known else 0.0,
        }


def one_after_the_other(pipeline: Pipeline, batch: Sequence[Document]) -> list[Any]:
    candidates = [each for each in pipeline.extract(batch) if not isinstance(each, DocumentError)]
    types = [each for each in pipeline.classify(candidates) if not isinstance(each, DocumentError)]
    entities = [each for each in pipeline.validate(types) if not isinstance(each, DocumentError)]
    return [assemble_by(pipeline.settings.method, each) for each in entities]


def timed(
    way: Way, call: Callable[[Pipeline, Sequence[Document]], Any], pipeline: Pipeline, batch: list[Document]
) -> None:
    """Batches of which nobody was asked are what known lines cost: nothing but their own work is in them."""
    before = sum(counts.misses for counts in pipeline.repeats.values())
    wall, processor = time.perf_counter(), time.process_time()
    call(pipeline, batch)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    asked = sum(counts.misses for counts in pipeline.repeats.values()) - before
    way.lines += len(batch)
    way.asked += asked
    way.wall += wall
    way.processor += processor
    if not asked:
        way.known += len(batch)
        way.known_wall += wall
        way.known_processor += processor


def resident() -> int:
    """Megabytes of this process in memory (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) // 1024


def run(pipeline: Pipeline, lines: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    door, stages = Way(), Way()
    for batch in batches(lines, 0, options.first, options.batch, rng):
        pipeline.tag(batch)
    memory = [resident()]
    reported = options.first
    for turn, batch in enumerate(batches(lines, options.first, options.lines, options.batch, rng)):
        if options.turns and turn % 2:
            timed(stages, one_after_the_other, pipeline, batch)
        else:
            timed(door, Pipeline.tag, pipeline, batch)
        done = door.lines + stages.lines + options.first
        if options.report_every and done - reported >= options.report_every:
            reported = done
            memory.append(resident())
            print(f"  {done} lines: {memory[-1]} MB", flush=True)
    memory.append(resident())
    figures: dict[str, Any] = {"door": door.figures(), "resident_mb": memory}
    if options.turns:
        figures["stages"] = stages.figures()
        slow = figures["stages"]["known_lines_per_processor_second"]
        figures["ratio"] = figures["door"]["known_lines_per_processor_second"] / slow if slow else None
    return figures


def report(name: str, figures: dict[str, Any]) -> None:
    for way in ("door", "stages"):
        if way in figures:
            each = figures[way]
            print(
                f"{name:20} {way:6} {each['lines']:7} lines, asked {each['asked']:4}; a second: "
                f"{each['lines_per_second']:7.0f} as they come, {each['known_lines_per_second']:7.0f} known ones "
                f"({each['known_lines_per_processor_second']:.0f} of processor time)"
            )
    if figures.get("ratio"):
        print(f"{name:20} known lines: {figures['ratio']:.1f} times as many by the door")
    print(f"{name:20} memory: {figures['resident_mb'][0]} to {figures['resident_mb'][-1]} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=2_000, help="lines that are not counted")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--turns", action="store_true")
    parser.add_argument("--report-every", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for file in options.files:
        lines = read_lines(file, None)
        if not lines:
            parser.error(f"{file} has no lines")
        with Tagger.from_config(overrides={"ensemble": {"preset": options.ensemble}}) as tagger:
            results[file.name] = run(tagger.pipeline, lines, options)
        report(file.name, results[file.name])
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"options": vars(options) | {"files": list(results), "json": None}, "files": results}, indent=2)
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
