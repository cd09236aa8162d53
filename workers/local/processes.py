"""Processes: commands that run to their end, and services that outlive their starter.

A service is only ever signalled when it is surely ours. A pid alone is no identity: after a reboot or a ``kill -9``
another process may have it. A process is ours when pid, start time and a marker in its command line all agree.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from workers.local.service_error import LocalServiceError

__all__ = ["ProcessIdentity", "is_running", "log_excerpt", "run_to_end", "spawn_detached", "stop", "wait_until"]

_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """One process, so that it can be told from a later one with the same pid.

    ``started`` is opaque and only compared for equality; ``marker`` is a text that its command line contains.
    """

    pid: int
    started: str
    marker: str


def is_running(identity: ProcessIdentity) -> bool:
    """Whether exactly this process still runs. A zombie does not."""
    return _started(identity.pid) == _in_seconds(identity.started) and identity.marker in _command_line(identity.pid)


def spawn_detached(
    argv: Sequence[str], *, marker: str, cwd: Path, output: Path, environ: Mapping[str, str]
) -> ProcessIdentity:
    """Start ``argv`` in a session of its own, its output in ``output`` (emptied first), and return at once.

    The process is no child of ours: it survives our exit and leaves us nothing to reap. A program that cannot be
    executed shows as a process that ended, with the reason in ``output``. Raises ``LocalServiceError`` if it ended
    before it could be identified.
    """
    if not any(marker in argument for argument in argv):
        raise ValueError(f"marker {marker!r} is not in the command line")
    # A shell that starts it in the background and exits is the double fork without forking a threaded Python.
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$@" </dev/null >"$0" 2>&1 & echo $!', str(output), *argv],
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=30,
        check=False,
    )
    if shell.returncode != 0:
        raise LocalServiceError(f"cannot start {argv[0]}: {shell.stderr.strip()}")
    pid = int(shell.stdout)
    started = _started(pid)
    if started is None:
        raise LocalServiceError(f"{argv[0]} ended at once: {log_excerpt([output]) or 'it said nothing'}")
    return ProcessIdentity(pid=pid, started=started, marker=marker)


def run_to_end(
    command: Sequence[str], *, environ: Mapping[str, str], timeout_s: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command without input; ``stdout`` is what both its streams had.

    Raises ``OSError`` if it cannot be started, ``subprocess.TimeoutExpired`` if it takes longer.
    """
    return subprocess.run(
        list(command),
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def stop(identity: ProcessIdentity, *, timeout_s: float = 20.0) -> bool:
    """SIGTERM, a bounded wait, then SIGKILL. True if it ran, False if it was already gone.

    Raises ``LocalServiceError`` if it outlives SIGKILL or is not ours to signal.
    """
    if not _signal(identity, signal.SIGTERM):
        return False
    if wait_until(lambda: not is_running(identity), timeout_s=timeout_s):
        return True
    _signal(identity, signal.SIGKILL)
    if wait_until(lambda: not is_running(identity), timeout_s=5.0):
        return True
    raise LocalServiceError(f"process {identity.pid} does not end, not even by SIGKILL: look at it with ps")


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll ``condition`` until it holds (True) or ``timeout_s`` has passed (False)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def log_excerpt(files: Iterable[Path], *, lines: int = 6) -> str:
    """The last telling lines of the first of ``files`` that has any, on one line; empty if none has."""
    for file in files:
        try:
            text = file.read_bytes()[-64_000:].decode(errors="replace")
        except FileNotFoundError:
            continue
        kept = [line.strip() for line in text.splitlines() if line.strip()]
        # A Java stack trace ends in frames that say nothing.
        kept = [line for line in kept if not re.match(r"(at [\w.$/]+\(|\.\.\. \d+ more)", line)]
        telling = [line for line in kept if re.search(r"ERROR|FATAL|Exception|[Ee]rror:|Caused by|\*\*\*", line)]
        if kept:
            return " | ".join((telling or kept)[-lines:])
    return ""


def _signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal if it is still this process; False if it is gone."""
    try:
        if sys.platform == "linux":
            # Holding the process by a pidfd before looking at it closes the gap between look and signal, in which
            # the pid could pass to another process.
            handle = os.pidfd_open(identity.pid)
            try:
                if not is_running(identity):
                    return False
                signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        else:
            if not is_running(identity):
                return False
            os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise LocalServiceError(
            f"process {identity.pid} belongs to another user: stop it as the user who started it"
        ) from error
    return True


def _started(pid: int) -> str | None:
    """When the process started; None if it does not run."""
    # Linux counts from its start, and psutil adds that on the wall clock, which may be set anew: here it is taken off.
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return f"{process.create_time() - boot:.2f}"
    except psutil.NoSuchProcess:
        return None


def _in_seconds(started: str) -> str:
    """A start time as :func:`_started` gives it. Earlier versions recorded Linux's: boot id, ``/``, clock ticks."""
    _, slash, ticks = started.partition("/")
    return f"{int(ticks) / os.sysconf('SC_CLK_TCK'):.2f}" if slash and ticks.isdecimal() else started


def _command_line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
