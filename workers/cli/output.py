"""What people see of a command: results on standard output, lines about how it goes on standard error."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from workers.cli.standard_output import standard_output
from workers.printable import escaped

__all__ = ["complain", "results", "table", "tell", "told"]


class _Pipe(Console):
    """A console on which nothing that is printed commands the terminal, but for what ``rich`` says itself.

    Not only where it is a terminal: what goes to a pipe or a file is often looked at on one. Programs read JSON.
    """

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(escaped(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command line, which treats every way of writing alike."""
        raise BrokenPipeError


def results() -> Console:
    """Standard output. Made anew for each use: tests, and pipes, change what that is."""
    # A file has no width: a table in it is as wide as it needs to be.
    file = standard_output()
    width = None if file.isatty() else 1_000
    return _Pipe(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def told() -> Console:
    """Standard error."""
    return _Pipe(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def table(*columns: str, right: Collection[str] = ()) -> Table:
    """An empty table; the columns in ``right`` hold numbers. On a narrow terminal cells are folded, never cut."""
    empty = Table(box=None, header_style="bold")
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return empty


def tell(line: str) -> None:
    """A line about how it goes."""
    told().print(escaped(line))


def complain(message: str, *, severity: str = "error") -> None:
    """``error: …`` on standard error."""
    colour = "bold red" if severity == "error" else "bold yellow"
    told().print(Text.assemble((f"{severity}: ", colour), escaped(message)))
