"""What the method takes of a document by itself, with an engine that answers at once: the ceiling of `load.py`.

A worker's engine thread calls ``Pipeline.tag``, and Python runs one thread at a time: no stream can be faster than one
such thread without a stream around it. The engine's own answers (hashes) are timed apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from el4ner import Tagger
from el4ner.types import Document

__all__ = ["method_alone"]

_WARM_UP = 500


def method_alone(texts: Callable[[int], Mapping[str, str]], count: int, batch: int) -> dict[str, float]:
    """Documents a second in one thread, and microseconds of processor time a document: in all, and of the engine.

    Args:
        texts: text and pool of a document, by its number.
        count: how many are measured.
        batch: documents in a call.
    """
    spent = 0.0

    def timed(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            nonlocal spent
            began = time.thread_time()
            try:
                return ask(*arguments)
            finally:
                spent += time.thread_time() - began

        return asked

    with Tagger.from_config(overrides={"ensemble": {"preset": "instant"}}) as tagger:
        for engine in tagger.pipeline.engines.values():
            for name in ("score", "generate"):
                setattr(engine, name, timed(getattr(engine, name)))
        documents = [Document(f"alone-{number}", **texts(number)) for number in range(-_WARM_UP, count)]
        tagger.pipeline.tag(documents[:_WARM_UP])
        spent = 0.0
        wall, processor = time.perf_counter(), time.thread_time()
        for first in range(_WARM_UP, len(documents), batch):
            tagger.pipeline.tag(documents[first : first + batch])
        wall, processor = time.perf_counter() - wall, time.thread_time() - processor
    return {
        "documents_per_second": count / wall,
        "microseconds": processor / count * 1e6,
        "engine_microseconds": spent / count * 1e6,
    }
