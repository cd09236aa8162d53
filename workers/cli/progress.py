"""How far something slow is, on standard error: bars on a terminal, elsewhere a line as each thing begins."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import override

from el4ner.models import progress
from workers.cli.output import told

__all__ = ["Counter", "TerminalProgress"]


class TerminalProgress(progress.Progress):
    """Bars on a terminal, lines elsewhere; inside a ``with`` block."""

    def __init__(self) -> None:
        self._console = told()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    @override
    def start(self, label: str, total: int) -> None:
        self.done()
        if self._console.is_terminal:
            self._task = self._bars.add_task(label, total=total or None)
        else:
            self._console.print(f"{label} …")

    @override
    def advance(self, steps: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, steps)

    @override
    def done(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


class Counter:
    """One bar that counts things; elsewhere than on a terminal nothing. ``total`` None: nobody knows."""

    def __init__(self, label: str, total: int | None) -> None:
        console = told()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task(label, total=total)

    def advance(self, steps: int = 1) -> None:
        """``steps`` more."""
        self._bars.advance(self._task, steps)

    def __enter__(self) -> Counter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
