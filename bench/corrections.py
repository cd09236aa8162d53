"""What corrections cost a worker: one of them while it runs, and all of them when it starts.

    python bench/corrections.py one    [--after 0,50,200] [--times 8]
    python bench/corrections.py replay [--examples 10000] [--pool news]

Both use the default ensemble, and made-up sentences of 16 words with two names.

`one`: after so many corrections each further one is taught as a worker does it, and its processor time is counted: all
of it, and the models' part. Nothing of it is kept from an earlier run. `--keep FILE` appends the rows, so that two
versions of the code can be measured by turns.

`replay`: the examples lie in the topic of a real broker (`workers.local`); a worker (`el4ner worker pipeline`) with
an empty cache folder starts and reads what is compared with, and then another one with the same folder, which is what
counts: from loaded models to ready pools, on the wall and in processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import orjson
import psutil

from el4ner.config import Settings, load_settings
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Document, Span

R = TypeVar("R")
SYLLABLES = ("bex", "cal", "dra", "el", "fon", "gar", "hol", "iv", "jor", "kel", "lyd", "mar", "nor", "ost", "pel")
ENDINGS = ("mont", "ford", "vik", "sund", "hurst", "ane")
FIRST = ("Maria", "Jonas", "Ines", "Pavel", "Aisha", "Tomas", "Lena", "Kofi", "Sofia", "Emil")
MATTERS = (
    "the merger",
    "the strike",
    "an inquiry",
    "the harvest",
    "new rules",
    "the ferry",
    "a lawsuit",
    "the election",
)
PRESET = "default"


def example(number: int) -> PoolExample:
    """The same one for a number, and another text for each."""
    draw = random.Random(number)
    firm = "".join(draw.choices(SYLLABLES, k=2)).title() + draw.choice(ENDINGS) + f" {number}"
    person = f"{draw.choice(FIRST)} {''.join(draw.choices(SYLLABLES, k=2)).title()}"
    text = f"Analysts at {firm} expect {draw.choice(MATTERS)} to close in weeks, said {person} on the phone."

    def span(surface: str) -> Span:
        return Span(text.index(surface), text.index(surface) + len(surface), surface)

    return PoolExample(text, ((span(firm), "organization"), (span(person), "person")), {}, "bench", number + 1)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- one correction -------------------------------------------------------------------------------------------------


def one(after: list[int], times: int, keep: Path | None) -> None:
    from el4ner.loader import load_pipeline

    settings = load_settings(Settings, environ=os.environ, overrides={"ensemble": {"preset": PRESET}})
    models = 0.0

    def call(function: Callable[[], R]) -> R:
        nonlocal models
        began = processor_seconds()
        answer = function()
        models += processor_seconds() - began
        return answer

    # Whatever is kept of taught sentences is from another run, so their texts are new.
    number = time.time_ns() // 1_000_000_000 * 1_000
    rows = []
    with load_pipeline(settings) as pipeline:
        pipeline.tag([Document("d", "Shares of Jordan rose.", "news")])
        base, examples = pipeline.teaching.base["news"], list[PoolExample]()

        def teach(count: int) -> None:
            nonlocal number
            examples.extend(example(number + at) for at in range(count))
            number += count
            taught = taught_pool(base, examples)
            if not pipeline.use_pool("news", pipeline.teaching.prepare("news", taught, call)):
                raise SystemExit("the pool was not read")

        for size in after:
            teach(max(1, size - len(examples)))  # the first one knows nothing of the files' sums
            whole, by_models = [], []
            for _ in range(times):
                models, began = 0.0, processor_seconds()
                teach(1)
                whole.append(processor_seconds() - began)
                by_models.append(models)
            row = {
                "after": size,
                "seconds": statistics.median(whole),
                "models": statistics.median(by_models),
                "most": max(whole),
            }
            rows.append(row)
            print(
                f"after {size:5} examples: {row['seconds']:.2f} s of processor time (at most {row['most']:.2f}), the "
                f"models {row['models']:.2f}",
                flush=True,
            )
    if keep is not None:
        with keep.open("a") as out:
            out.write(json.dumps(rows) + "\n")


# --- all of them, at a start ----------------------------------------------------------------------------------------


def replay(count: int, pool: str) -> None:
    from workers.config import load_stream_settings
    from workers.kafka import topic_admin
    from workers.local.services import temporary_services
    from workers.messages.pool_examples import ExampleKey
    from workers.teaching.topic_examples import send_examples

    with tempfile.TemporaryDirectory() as scratch, temporary_services(Path(scratch) / "services") as services:
        settings = load_stream_settings(environ=services.environ(), overrides={"ensemble": {"preset": PRESET}})
        topic_admin.create(settings)
        began = time.monotonic()
        examples = map(example, range(count))
        sent = send_examples(settings.kafka, ((ExampleKey(pool, each.digest), each) for each in examples))
        print(f"{sent} examples in the topic after {time.monotonic() - began:.0f} s", flush=True)
        for start in ("first", "second"):
            with started(Path(scratch), services.environ(), start) as (wall, used, fingerprint):
                print(f"{start} start: {wall:.1f} s, {used:.1f} s of processor time; pool {fingerprint}", flush=True)


@contextmanager
def started(folder: Path, environ: dict[str, str], name: str) -> Iterator[tuple[float, float, str]]:
    """A worker, ready: how long it took from loaded models to pools that are taught, and by which pool it goes."""
    log = folder / f"{name}.log"
    settings = {
        "EL4NER_ENSEMBLE__PRESET": PRESET,
        "EL4NER_CACHE_DIR": str(folder / "cache"),
        "EL4NER_WORKER__DATA_DIR": str(folder / "workers"),
        "EL4NER_WORKER__LOG_FORMAT": "json",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "pipeline"],
            env={**os.environ, **environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        watched = psutil.Process(process.pid)
        loaded = at(log, process, watched, "pipeline loaded")
        read = at(log, process, watched, "the pools' examples are read")
        fingerprint = next(line["fingerprint"] for line in lines(log) if line.get("event") == "the pool is taught")
        yield read[0] - loaded[0], read[1] - loaded[1], fingerprint
    finally:
        process.terminate()
        process.wait(timeout=120)


def at(log: Path, process: subprocess.Popen[bytes], watched: psutil.Process, event: str) -> tuple[float, float]:
    """When the worker says so: seconds on the wall, and its processor time."""
    while not any(line.get("event") == event for line in lines(log)):
        if process.poll() is not None:
            sys.exit(f"the worker ended: {log.read_text()[-3000:]}")
        time.sleep(0.1)
    used = watched.cpu_times()
    return time.monotonic(), used.user + used.system


def lines(log: Path) -> list[dict[str, str]]:
    return [
        orjson.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["one", "replay"])
    parser.add_argument("--after", default="0,50,200", help="one: examples that were taught before")
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--pool", default="news")
    options = parser.parse_args()
    if options.what == "one":
        one([int(size) for size in options.after.split(",")], options.times, options.keep)
    else:
        replay(options.examples, options.pool)


if __name__ == "__main__":
    main()
