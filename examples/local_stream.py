"""What the examples that run a stream on this machine share: workers, commands of el4ner's, and what was tagged."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from workers.config import StreamSettings
from workers.inputs.documents import format_of, read_documents
from workers.tail import tagged_until_now

__all__ = ["ROOT", "SAMPLE", "ExampleError", "el4ner", "send", "tagged_ids", "tell", "worker"]

ROOT: Final = Path(__file__).parents[1]
SAMPLE: Final = ROOT / "el4ner" / "samples" / "demo.jsonl"
_WORKER_SECONDS: Final = 900.0
"""The first time a worker prepares its models."""


class ExampleError(Exception):
    """Something that the example needs is not there, or ended; the message says what to do."""


@contextlib.contextmanager
def worker(role: str, options: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """``el4ner worker ROLE``, ready; stopped in order at the end."""
    ready, log = folder / f"{role}.ready", folder / f"{role}.log"
    command = [sys.executable, "-m", "workers.cli", "worker", role, "--ready-file", str(ready), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environ), stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + _WORKER_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise ExampleError(f"the worker {role} is not ready: {log.read_text(errors='replace').strip()[-600:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def el4ner(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """A command of el4ner's, as a person types it. What it answers is shown only if it fails."""
    tell(f"$ el4ner {shlex.join(arguments)}")
    command = [sys.executable, "-m", "workers.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(environ), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ExampleError(f"el4ner {shlex.join(arguments)} failed: {done.stdout}")


def send(arguments: argparse.Namespace, folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Send the first documents of the file; their ids."""
    lines = arguments.documents.read_text().splitlines(keepends=True)[: arguments.limit]
    sample = folder / f"sample{arguments.documents.suffix}"
    sample.write_text("".join(lines))
    el4ner(["produce", str(sample)], environ)
    return sorted({document.id for document in read_documents(sample, format=format_of(sample))})


def tagged_ids(settings: StreamSettings) -> list[str]:
    """The ids of what was tagged and not deleted, until now."""
    ids: dict[str, None] = {}
    for tailed in tagged_until_now(settings, deleted=lambda name: ids.pop(name, None)):
        ids[tailed.value["id"]] = None
    if not ids:
        tell("nothing is tagged yet: what is tagged from now on will come")
    return sorted(ids)


def tell(line: str) -> None:
    """For the person who waits."""
    print(line, file=sys.stderr, flush=True)
