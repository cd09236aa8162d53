"""How fast ``el4ner serve`` answers, beside ``Pipeline.tag`` alone in the same run: requests/s and latencies.

    python bench/serve.py [--requests 2000] [--connections 1,16,64] [--texts 1] [--json FILE]

With the instant engine, so what is measured is the service: HTTP, JSON, the queue, the shared batches. Every text is
new. The service is a process of its own; the clients are connections of this one, which share the machine with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from el4ner.config import Settings, load_settings
from el4ner.loader import load_pipeline
from el4ner.types import Document

SECTIONS = '[ensemble]\npreset = "instant"\n[redis]\nenabled = false\n[method]\nrepeats = "off"\n[serve]\nport = 0\n'
BATCH = 32


def text(number: int) -> str:
    return f"Ada Lovelace met Charles Babbage of unit {number} in London on Tuesday."


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The service; gives its address."""
    config, port = folder / "el4ner.toml", folder / "port"
    config.write_text(SECTIONS)
    command = [sys.executable, "-m", "workers.cli", "--log-level", "warning", "serve", "--config", str(config)]
    process = subprocess.Popen([*command, "--ready-file", str(port)], env=environment(folder))
    try:
        while not port.exists():
            if process.poll() is not None:
                raise SystemExit(f"the service ended with status {process.returncode}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        process.terminate()
        process.wait()


def environment(folder: Path) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("EL4NER_")}
    return {**plain, "EL4NER_CACHE_DIR": str(folder / "cache")}


async def load(url: str, *, requests: int, connections: int, texts: int) -> dict[str, Any]:
    """Every connection sends its next request as soon as the last one is answered."""
    numbers, seconds, refused = iter(range(requests)), list[float](), 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal refused
        for number in numbers:
            body = {"texts": [text(number * texts + each) for each in range(texts)]}
            began = time.perf_counter()
            async with session.post(f"{url}/v1/tag", json=body) as response:
                await response.read()
                refused += response.status != 200
            seconds.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(connections)))
        wall = time.perf_counter() - began
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "connections": connections,
        "requests_per_second": round(requests / wall, 1),
        "texts_per_second": round(requests * texts / wall, 1),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "not_200": refused,
    }


def alone(folder: Path, texts: int) -> float:
    """Texts a second by ``Pipeline.tag``, in batches of the service's size."""
    config = folder / "alone.toml"
    config.write_text(SECTIONS.partition("[redis]")[0] + '[method]\nrepeats = "off"\n')
    with load_pipeline(load_settings(Settings, config, environ={}), cache_dir=folder / "cache") as pipeline:
        documents = [Document(str(number), text(number)) for number in range(texts)]
        pipeline.tag(documents[:BATCH])
        began = time.perf_counter()
        for first in range(0, texts, BATCH):
            pipeline.tag(documents[first : first + BATCH])
        return texts / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--texts", type=int, default=1, help="in each request")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="el4ner-serve-") as name:
        folder = Path(name)
        results: dict[str, Any] = {
            "pipeline_texts_per_second": round(alone(folder, options.requests), 1),
            "service": [],
        }
        print(f"Pipeline.tag alone: {results['pipeline_texts_per_second']} texts/s in batches of {BATCH}")
        with running(folder) as url:
            asyncio.run(load(url, requests=100, connections=4, texts=options.texts))
            for connections in map(int, options.connections.split(",")):
                sizes = {"requests": options.requests, "connections": connections, "texts": options.texts}
                results["service"].append(asyncio.run(load(url, **sizes)))
                print(json.dumps(results["service"][-1]))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
