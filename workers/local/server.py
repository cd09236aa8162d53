"""What the local servers have in common: launch, wait until it answers, stop by identity."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from workers.local.processes import is_running, log_excerpt, stop, wait_until
from workers.local.service_error import LocalServiceError
from workers.local.state import ServiceName, ServiceRecord

__all__ = ["LocalServer", "Progress", "no_progress"]

Progress = Callable[[str], None]
"""Takes one line that tells a person what goes on."""


def no_progress(_line: str) -> None:
    """A :data:`Progress` for callers who do not want to know."""


class LocalServer(ABC):
    """One server on the loopback address, with everything it writes in ``data_dir``.

    An object of this class describes the server; what runs is told by the record that :meth:`launch` returns, which
    the caller keeps. ``port`` None means: the port it had last, if that is free, else any free one. ``environ`` is
    where tools are looked up and what the process inherits.
    """

    name: ClassVar[ServiceName]
    title: ClassVar[str]

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        environ: Mapping[str, str],
        progress: Progress = no_progress,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self._environ = environ
        self._progress = progress

    @abstractmethod
    def missing(self) -> list[str]:
        """What this machine lacks to run the server, each with how to get it; empty if it can run."""

    @abstractmethod
    def launch(self) -> ServiceRecord:
        """Prepare what is needed and start the process; it may not answer yet.

        The caller must not launch it twice on one ``data_dir``.
        """

    @abstractmethod
    def answers(self, record: ServiceRecord) -> bool:
        """Whether it serves a real request, asked over its protocol, within a few seconds."""

    @property
    @abstractmethod
    def logs(self) -> list[Path]:
        """Where it explains itself, the most telling first."""

    def start(self, *, timeout_s: float = 60.0) -> ServiceRecord:
        """:meth:`launch` and :meth:`wait_ready`; stopped again if it does not come to answer."""
        record = self.launch()
        try:
            self.wait_ready(record, timeout_s=timeout_s)
        except BaseException:
            with contextlib.suppress(LocalServiceError):
                self.stop(record)
            raise
        return record

    def wait_ready(self, record: ServiceRecord, *, timeout_s: float = 60.0) -> None:
        """Return once it answers. ``LocalServiceError`` if it ended or did not answer in time, quoting its log."""
        began = time.monotonic()
        process = record.process
        if process is None:
            raise ValueError(f"{self.name} is not run by a process of ours")
        answered = False

        def settled() -> bool:
            nonlocal answered
            answered = self.answers(record)
            return answered or not is_running(process)

        wait_until(settled, timeout_s=timeout_s)
        if not answered:
            what = f"did not answer within {timeout_s:.0f} s" if is_running(process) else "ended while it started"
            raise LocalServiceError(
                f"{self.title} {what}; its log {self.logs[0]} says: {log_excerpt(self.logs) or 'nothing'}"
            )
        self._progress(f"{self.title} answers at {record.address} after {time.monotonic() - began:.1f} s")

    def stop(self, record: ServiceRecord, *, timeout_s: float = 20.0) -> bool:
        """Stop what ``record`` names and nothing else. False if it was gone already."""
        return record.process is not None and stop(record.process, timeout_s=timeout_s)
