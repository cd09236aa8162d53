"""Ends what the suite started when the suite itself is killed: ``python -m tests.chaos.reaper``.

Its input is a pipe from the suite (:class:`Reaper`): a JSON line for everything that was started. When the pipe ends,
however the other side ended, whatever still runs is stopped, each by its identity and never by a bare pid.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.paths import ROOT
from workers.local import processes
from workers.local.processes import ProcessIdentity
from workers.local.service_error import LocalServiceError

__all__ = ["Reaper"]


class Reaper:
    """Knows what has to end with the suite. A context manager; at its end everything should have been stopped."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.reaper"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal is for the suite
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(timeout=60)

    def watch(self, identity: ProcessIdentity) -> None:
        """This process must not outlive the suite."""
        self._tell({"process": asdict(identity)})

    def watch_child(self, process: subprocess.Popen[bytes], marker: str) -> None:
        """As :meth:`watch`, for a child whose command line contains ``marker``."""
        started = processes._started(process.pid)
        if started is not None:
            self.watch(ProcessIdentity(pid=process.pid, started=started, marker=marker))

    def watch_mount(self, folder: Path) -> None:
        """This file system must not outlive the suite."""
        self._tell({"mount": str(folder)})

    def _tell(self, what: dict[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the reaper was not started")
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()


def main() -> None:
    """Read what there is until the other side is gone, then end it."""
    watched = [json.loads(line) for line in sys.stdin]
    for one in watched:
        if "process" in one:
            with contextlib.suppress(LocalServiceError):
                # A stopped process (SIGSTOP) takes no SIGTERM, hence the short patience before SIGKILL.
                processes.stop(ProcessIdentity(**one["process"]), timeout_s=0.5)
    for one in watched:
        if "mount" in one and Path(one["mount"]).is_mount():
            subprocess.run(["umount", one["mount"]], check=False)


if __name__ == "__main__":
    main()
