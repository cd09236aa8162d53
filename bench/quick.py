"""The headline figures of docs/performance.md in under four minutes: ratios of one run, on this machine.

    python bench/quick.py [--only first-tag,sentences,lines,stream] [--json OUT]

- first tag: `el4ner tag` with an empty cache, and once more. Whatever a first use makes is in it; installing is not.
- sentences: the default ensemble's, with the number type that `dtype = "auto"` takes here and in float32, by turns.
- lines: of known log templates, in one call and by the stages one after the other, by turns (`bench/log_rate.py`).
- stream: documents through Kafka with the instant engine, beside a bare chain of aiokafka programs (`bench/load.py`).

Each has a command of its own that takes longer and says more. Figures of different machines do not compare; ratios
nearly do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tag import forget_prompts, measure, sample

from el4ner.config import Settings, load_settings
from el4ner.loader import load_pipeline
from workers.cli.progress import TerminalProgress

HERE: Final = Path(__file__).parent
TEXT: Final = "The minister met Ada Lovelace of Analytical Engines in London on Tuesday, before the Trade Summit."
SENTENCES: Final = 24
ROUNDS: Final = 2
FORMATS: Final = ("sshd", "nginx-access")
"""Whose lines are varied. Few templates: each of them is asked about some times before it is known."""


def _run(*command: str, **environ: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr.decode(errors='replace')[-3000:]}")


def first_tag(scratch: Path) -> dict[str, float]:
    """Seconds of the whole command."""
    seconds = {}
    for name in ("empty", "again"):
        clock = time.perf_counter()
        _run("-m", "workers.cli", "tag", TEXT, EL4NER_CACHE_DIR=str(scratch / "cache"))
        seconds[name] = time.perf_counter() - clock
    print(f"first tag, empty cache    {seconds['empty']:8.1f} s    again {seconds['again']:.1f} s", flush=True)
    return seconds


def sentences(scratch: Path) -> dict[str, Any]:
    """Sentences a second, by number type. Both pipelines are loaded, and take turns."""
    del scratch
    members = load_settings(Settings).ensemble.members
    pipelines = {}
    with TerminalProgress() as progress:
        for dtype in ("auto", "float32"):
            overrides = {"method": {"repeats": "off"}, "models": {name: {"dtype": dtype} for name in members}}
            pipelines[dtype] = load_pipeline(load_settings(Settings, overrides=overrides), progress=progress)
    texts = sample(SENTENCES)
    spent = dict.fromkeys(pipelines, 0.0)
    for pipeline in pipelines.values():
        measure(pipeline, texts[:4], 4)  # the first pass of a shape pays for its kernels
    for _ in range(ROUNDS):
        for dtype, pipeline in pipelines.items():
            forget_prompts(pipeline.engines.values())
            spent[dtype] += sum(measure(pipeline, texts, 8)["seconds"].values())
    for pipeline in pipelines.values():
        pipeline.close()
    rates = {dtype: ROUNDS * len(texts) / seconds for dtype, seconds in spent.items()}
    ratio = rates["auto"] / rates["float32"]
    print(f"sentences a second        {rates['auto']:8.2f}      {ratio:.2f} × float32 on this machine", flush=True)
    return rates | {"ratio": ratio}


def lines(scratch: Path) -> dict[str, Any]:
    """Known log lines a second."""
    file, out = scratch / "lines.log", scratch / "lines.json"
    every = map(json.loads, (HERE / "data" / "logs" / "lines.jsonl").read_text(encoding="utf-8").splitlines())
    first_of = {(line["format"], line["phrasing"]): line["text"] for line in every if line["format"] in FORMATS}
    file.write_text("\n".join(first_of.values()), encoding="utf-8")
    _run(str(HERE / "log_rate.py"), str(file), "--turns", "--lines", "12000", "--first", "3000", "--json", str(out))
    figures: dict[str, Any] = json.loads(out.read_text())["files"][file.name]
    rate, ratio = figures["door"]["known_lines_per_second"], figures["ratio"]
    print(f"known log lines a second  {rate:8.0f}      {ratio:.1f} × the stages one after the other", flush=True)
    return figures


def stream(scratch: Path) -> dict[str, Any]:
    """Documents a second through Kafka."""
    out = scratch / "load.json"
    _run(str(HERE / "load.py"), "--documents", "4000", "--processes", "1", "--json", str(out))
    figures: dict[str, Any] = json.loads(out.read_text())
    print("\n".join(stream_lines(figures)), flush=True)
    return figures


def stream_lines(figures: Mapping[str, Any]) -> list[str]:
    """A line for each topology of `load.py`, with its ratio to the bare chain of as many hops."""
    lines = []
    for name, each in figures.items():
        if name.startswith("bare chain") or "p99_seconds" not in each:
            continue
        chain = figures["bare chain, one hop" if name.startswith("one hop") else "bare chain, four hops"]
        rate = each["documents_per_second"]
        part = f"1/{chain['documents_per_second'] / rate:.1f}"
        lines.append(
            f"documents a second        {rate:8.0f}      {part} of the bare chain, "
            f"p99 at half load {each['p99_seconds']:.2f} s ({name})"
        )
    return lines


PARTS: Final[Mapping[str, Callable[[Path], dict[str, Any]]]] = {
    "first-tag": first_tag,
    "sentences": sentences,
    "lines": lines,
    "stream": stream,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,PART")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = options.only.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--only: some of {', '.join(PARTS)}")
    began = time.perf_counter()
    print(f"{platform.machine()}, {os.cpu_count()} cores", flush=True)
    results: dict[str, Any] = {}
    for part in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            results[part] = PARTS[part](Path(scratch))
    print(f"{time.perf_counter() - began:.0f} s in all")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
