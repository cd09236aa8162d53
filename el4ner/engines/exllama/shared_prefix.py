"""Reading rows behind prompts: prompts as many as the cache holds, rows as many as fit a pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from el4ner.engines.exllama.backend import Backend, HeldPrompt, SuffixRow
from el4ner.engines.exllama.limits import BatchLimit, CallLimit, FaultRecovery
from el4ner.errors import El4nerError

__all__ = ["AskedRow", "SharedPrefixRows", "read_rows"]

log = logging.getLogger(__name__)
R = TypeVar("R")


class AskedRow(NamedTuple):
    """A :class:`SuffixRow` whose prompt is not held yet."""

    tokens: tuple[int, ...]
    targets: tuple[tuple[int, int], ...] = ()
    places: tuple[int, ...] = ()


@dataclass(slots=True)
class SharedPrefixRows(Generic[R]):
    """Rows behind one prompt, and what was found: a result a row, and how much of the prompt was in the cache."""

    prompt: tuple[int, ...]
    rows: list[AskedRow] = field(default_factory=list)
    results: list[R] = field(default_factory=list)
    cached_tokens: int = 0


def read_rows(
    name: str,
    asked: Sequence[SharedPrefixRows[R]],
    backend: Backend,
    read: Callable[[Sequence[SuffixRow]], Iterable[R]],
    call_limit: CallLimit,
    batch_limit: BatchLimit,
) -> None:
    """Fill in every result. Prompts that were held when something failed are read again.

    Raises:
        EngineError: the call took too long, or the library failed twice.
        EngineOutOfMemoryError: there is not even memory for one row.
    """
    recovery = FaultRecovery(name, backend, batch_limit, "row", log)
    done = 0
    while done < len(asked):
        call_limit.check()
        held: list[HeldPrompt] = []
        try:
            held = backend.hold([one.prompt for one in asked[done:]])
            _read_held(asked[done : done + len(held)], held, backend, read, call_limit, batch_limit)
            backend.release(held)
            done += len(held)
        except El4nerError:
            backend.release(held)
            raise
        except Exception as error:
            recovery.recover(error)
    batch_limit.passed()


def _read_held(
    asked: Sequence[SharedPrefixRows[R]],
    held: Sequence[HeldPrompt],
    backend: Backend,
    read: Callable[[Sequence[SuffixRow]], Iterable[R]],
    call_limit: CallLimit,
    batch_limit: BatchLimit,
) -> None:
    rows = [
        (index, number, SuffixRow(prompt, *row))
        for index, (prefix_rows, prompt) in enumerate(zip(asked, held, strict=True))
        for number, row in enumerate(prefix_rows.rows)
    ]
    rows.sort(key=lambda row: -len(row[2].tokens))  # rows of a pass are as wide as the widest
    results: dict[tuple[int, int], R] = {}
    while rows:
        call_limit.check()
        count = backend.fitting([row for _, _, row in rows[: batch_limit.now]])
        part, rows = rows[:count], rows[count:]
        for (index, number, _), result in zip(part, read([row for _, _, row in part]), strict=True):
            results[index, number] = result
    for index, (prefix_rows, prompt) in enumerate(zip(asked, held, strict=True)):
        prefix_rows.results = [results[index, number] for number in range(len(prefix_rows.rows))]
        prefix_rows.cached_tokens = prompt.cached_tokens
