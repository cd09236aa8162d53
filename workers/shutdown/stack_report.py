"""Where a process stands: the threads' and the tasks' positions in a few bounded lines, read from any thread."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import AsyncGeneratorType, FrameType
from typing import Any, Final

__all__ = ["task_positions", "thread_positions"]

_MOST_LINES: Final = 40
_MOST_FRAMES: Final = 6
_MOST_CHARS: Final = 500
_INNER: Final = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}
"""Of coroutines, generators and asynchronous generators: the attribute that says what they wait for."""


def thread_positions() -> list[str]:
    """One line a thread: its name, and its innermost frames, innermost first. At most 41 lines of 500 characters."""
    names = {thread.ident: f"{thread.name}{' (daemon)' if thread.daemon else ''}" for thread in threading.enumerate()}
    frames = sys._current_frames()
    first = threading.main_thread().ident
    idents = sorted((ident for ident in {*names, *frames} if ident is not None), key=lambda ident: ident != first)
    return _bounded(
        f"{names.get(ident, f'thread {ident}')}: {_joined(_outwards(frames.get(ident))) or 'not in Python'}"
        for ident in idents
        if ident != threading.get_ident()
    )


def task_positions(loops: Iterable[asyncio.AbstractEventLoop]) -> list[str]:
    """One line a task that is not done: its name, what it runs, and what it waits for, innermost first; 41 lines a
    loop at most. No lock is taken that somebody else could hold."""
    return [
        line
        for loop in loops
        for line in _bounded(
            f"{task.get_name()} {_name(task.get_coro())}: {_joined(reversed(list(_inwards(task.get_coro()))))}"
            for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        )
    ]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _inwards(awaited: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of what it awaits. (``Task.get_stack`` tells of the outermost only.)"""
    while awaited is not None:
        prefix = next((prefix for prefix in _INNER if hasattr(awaited, f"{prefix}_frame")), None)
        if prefix is None:
            # What steps an asynchronous generator (a context manager's, say) shows it to the garbage collector alone.
            awaited = next(
                (generator for generator in gc.get_referents(awaited) if isinstance(generator, AsyncGeneratorType)),
                None,
            )
            continue
        frame = getattr(awaited, f"{prefix}_frame")
        if frame is not None:
            yield frame
        awaited = getattr(awaited, _INNER[prefix])


def _joined(frames: Iterable[FrameType]) -> str:
    places: list[str] = []
    for frame in frames:
        if len(places) == _MOST_FRAMES:
            places.append("…")
            break
        path = "/".join(PurePath(frame.f_code.co_filename).parts[-2:])
        places.append(f"{path}:{frame.f_lineno} {frame.f_code.co_name}")
    return " < ".join(places)


def _name(coroutine: Any) -> str:
    return str(getattr(coroutine, "__qualname__", type(coroutine).__qualname__))


def _bounded(lines: Iterable[str]) -> list[str]:
    cut_lines = [line if len(line) <= _MOST_CHARS else line[: _MOST_CHARS - 1] + "…" for line in lines]
    left_out = len(cut_lines) - _MOST_LINES
    return cut_lines if left_out <= 0 else [*cut_lines[:_MOST_LINES], f"… and {left_out} more"]
