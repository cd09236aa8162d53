"""A worker under test: ``python -m tests.chaos.worker STAGE… --config FILE`` is ``python -m workers`` with faults.

What it does to the process before :mod:`workers.__main__` runs in it is told by the environment:

    CHAOS_CLOCK     a file that holds seconds; the wall clock is so many seconds off, always as the file says now
    CHAOS_SCHEMA    ``newer``: stage messages have fields and headers that nobody knows; ``older``: they lack the
                    headers that came last
    CHAOS_FULL      no file can be written: the disk is full, for a machine where no small file system can be mounted

Engines are always :class:`~tests.chaos.faults.FaultyEngine`, and the embedder one that needs no model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

__all__ = ["main"]

_STAGE_EVENT: Final = ("el4ner.span-candidates.", "el4ner.typed-entities.", "el4ner.validation-verdicts.")
_NEW_HEADERS: Final = ("el4ner-position", "el4ner-revision")
_LOOK_EVERY_S: Final = 0.05


class HashEmbedder:
    """Unit vectors from a hash of the text: equal texts are equal, nothing else means anything."""

    fingerprint = "hash-16"

    def __init__(self, _folder: Path) -> None:
        pass

    def load(self) -> None:
        """See :class:`~el4ner.retrieval.SentenceTransformerEmbedder`."""

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Any:
        """See :class:`~el4ner.retrieval.embedder.Embedder`."""
        if progress is not None:
            progress(len(texts))
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint8) for text in texts]
        vectors = np.asarray(rows, dtype=np.float32).reshape(len(texts), 16) - 127.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> int:
    """Exit status: that of :func:`workers.__main__.main`."""
    environ = os.environ
    if "CHAOS_FULL" in environ:
        _fill_the_disk()
    if "CHAOS_CLOCK" in environ:
        _shift_the_clock(Path(environ["CHAOS_CLOCK"]))
    if "CHAOS_SCHEMA" in environ:
        _change_stage_messages(environ["CHAOS_SCHEMA"])
    # Only now: they must see the clock as it is shifted.
    from workers.__main__ import main as run

    _replace_models([argument for argument in sys.argv[1:] if not argument.startswith("-")])
    return run(sys.argv[1:])


def _replace_models(stages: Sequence[str]) -> None:
    """Engines with faults, wherever the pipeline gets its engines from."""
    from el4ner import loader
    from el4ner.engines import registry
    from tests.chaos.faults import STAGES, FaultyEngine

    own = STAGES if {"all", "pipeline"} & set(stages) else tuple(stage for stage in stages if stage in STAGES)

    def load_engine(name: str, *_: Any, **__: Any) -> FaultyEngine:
        return FaultyEngine(name, stages=own)

    # Both: the name in the registry, and what the loader has bound already.
    registry.load_engine = load_engine  # type: ignore[assignment]
    loader.load_engine = load_engine  # type: ignore[attr-defined]
    loader.prepare = lambda *_, **__: Path()  # type: ignore[attr-defined]
    loader.SentenceTransformerEmbedder = HashEmbedder  # type: ignore[attr-defined]


def _shift_the_clock(file: Path) -> None:
    """``time.time`` and ``time.time_ns`` are off by what the file says. ``time.monotonic`` is not, as on a machine."""
    real, real_ns, monotonic = time.time, time.time_ns, time.monotonic
    shift, looked = 0.0, -1.0

    def offset() -> float:
        nonlocal shift, looked
        if monotonic() - looked > _LOOK_EVERY_S:
            looked = monotonic()
            with contextlib.suppress(OSError, ValueError):
                shift = float(file.read_text())
        return shift

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1_000_000_000)


def _change_stage_messages(version: str) -> None:
    """What goes out on the stage topics is changed as the client's batches are built."""
    from aiokafka.producer.message_accumulator import BatchBuilder

    append = BatchBuilder.append

    def changed(self: Any, *, timestamp: Any, key: Any, value: Any, headers: Any = ()) -> Any:
        kind = next((content for name, content in headers or () if name == "ce_type"), b"")
        if value is not None and kind.decode().startswith(_STAGE_EVENT):
            value, headers = (_newer if version == "newer" else _older)(value, list(headers))
        return append(self, timestamp=timestamp, key=key, value=value, headers=headers)

    BatchBuilder.append = changed


def _newer(value: bytes, headers: list[tuple[str, bytes]]) -> tuple[bytes, list[tuple[str, bytes]]]:
    data = orjson.loads(value)
    data["x_of_the_next_version"] = {"nested": [1, None, "é"]}
    data["document"]["x_language"] = "en"
    for part in ("producer", "usage"):
        if part in data:
            data[part]["x_of_the_next_version"] = "optional"
    for sentence in data.get("sentences", ()):
        sentence["x_of_the_next_version"] = True
    return orjson.dumps(data), [*headers, ("el4ner-of-the-next-version", b"\xff\x00")]


def _older(value: bytes, headers: list[tuple[str, bytes]]) -> tuple[bytes, list[tuple[str, bytes]]]:
    return value, [(name, content) for name, content in headers if name not in _NEW_HEADERS]


def _fill_the_disk() -> None:
    """No file of this process may grow. What it logs goes through another one, which may write."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    if log.stdin is None:
        raise RuntimeError("there is no pipe to log to")
    os.dup2(log.stdin.fileno(), 1)
    os.dup2(log.stdin.fileno(), 2)
    log.stdin.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
