"""Another program's long work: its output is kept and read line by line, and it ends when this process does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["run_logged"]

_PATIENCE: Final = 20.0
"""Seconds in which a program that is told to end may do so by itself."""


def run_logged(
    command: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    read: Callable[[str], None],
    *,
    keep: int = 4_000,
    watched: bool = False,
) -> tuple[int, list[str]]:
    """Run ``command`` in a session of its own: Ctrl-C is for this process, which then ends that one and its children.

    Args:
        command: the program and its arguments.
        environ: all of its variables.
        log: everything that it says is appended to this file.
        read: is given each line.
        keep: how many of its last lines are returned.
        watched: its standard input is a pipe that nothing is written to: it ends when this process is gone, however
            that happens. Else standard input is empty.

    Returns:
        The exit code, and the last lines.
    """
    last: deque[str] = deque(maxlen=keep)
    with (
        log.open("a", encoding="utf-8") as written,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE if watched else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
            start_new_session=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                written.write(line)
                written.flush()
                last.append(line)
                read(line)
            return process.wait(), list(last)
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
