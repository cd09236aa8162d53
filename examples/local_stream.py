"""What the examples that run a stream on this machine share: workers, commands of el4ner's, and what was tagged."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from el4ner.errors import El4nerError
from workers.config import StreamSettings
from workers.inputs.documents import format_of, read_documents
from workers.local.service_error import LocalServiceError
from workers.tail import tagged_until_now

__all__ = [
    "ROOT",
    "SAMPLE",
    "ExampleError",
    "el4ner",
    "example_arguments",
    "run_command",
    "run_example",
    "send",
    "tagged_ids",
    "tell",
    "worker",
]

ROOT: Final = Path(__file__).parents[1]
SAMPLE: Final = ROOT / "el4ner" / "samples" / "demo.jsonl"
_WORKER_SECONDS: Final = 900.0
"""The first time a worker prepares its models."""


class ExampleError(Exception):
    """Something that the example needs is not there, or ended; the message says what to do."""


def example_arguments(description: str, *, no_tagging: str, once: str, command: str) -> argparse.Namespace:
    """What both examples are told. The rest: what their options do."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--no-tagging", action="store_true", help=no_tagging)
    parser.add_argument("--documents", type=Path, default=SAMPLE, metavar="FILE", help="what to tag")
    parser.add_argument("--limit", type=int, default=40, metavar="N", help="only the first N of them (default: 40)")
    parser.add_argument("--ensemble", metavar="PRESET", help="of the worker (default: el4ner's)")
    parser.add_argument("--once", action="store_true", help=once)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=command)
    return parser.parse_args()


def run_example(run: Callable[[Path], int], *errors: type[Exception]) -> int:
    """``run(folder)`` in a folder of its own; 1 and a line on standard error if something is missing, or ended, or is
    one of ``errors``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up as Ctrl-C does
    told: tuple[type[Exception], ...] = (ExampleError, LocalServiceError, El4nerError, *errors)
    try:
        with tempfile.TemporaryDirectory(prefix="el4ner-example-") as folder:
            return run(Path(folder))
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run_command(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a program of the user's; its exit status."""
    try:
        return subprocess.run(command, env=dict(environ), check=False).returncode
    except OSError as error:
        raise ExampleError(f"cannot run {command[0]}: {error}") from error


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
