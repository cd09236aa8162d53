"""What people see: entities marked in their text, lines of error, consoles."""

from __future__ import annotations

import errno
import io
import os
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from el4ner.errors import El4nerError
from workers.printable import escaped, legible

__all__ = [
    "Mark",
    "OutputError",
    "bold",
    "colour_of",
    "complain",
    "discard_results",
    "flush_results",
    "legible",
    "marked",
    "plainly_marked",
    "prepare_standard_streams",
    "reserve_standard_output",
    "results",
    "results_file",
    "table",
    "tell",
    "told",
    "writable",
]

_FAMILIAR: Final[Mapping[str, str]] = {
    "person": "bright_cyan",
    "user": "bright_cyan",
    "organization": "bright_green",
    "organisation": "bright_green",
    "process": "bright_green",
    "service": "bright_green",
    "location": "bright_yellow",
    "host": "bright_yellow",
    "product": "bright_magenta",
    "file-path": "bright_magenta",
    "event": "orange1",
    "ip-address": "orange1",
    "date": "bright_blue",
    "timestamp": "bright_blue",
    "error-code": "bright_red",
}
_OTHERS: Final = ("cyan", "green", "yellow", "magenta", "blue", "deep_pink2", "turquoise2", "chartreuse3", "gold3")


_ERRORS: Final = "backslashreplace"
"""A terminal that cannot show a character is no reason to stop."""


class Mark(NamedTuple):
    """A typed span to show: code points, half-open."""

    start: int
    end: int
    type: str


class OutputError(El4nerError):
    """Results cannot be written to standard output."""

    code = "output"


class _ResultsFile(io.FileIO):
    """Standard output. A reader that has gone is a :class:`BrokenPipeError`, all else an :class:`OutputError`."""

    def write(self, data: Any, /) -> int:
        """As of any file."""
        try:
            return super().write(data)
        except (BrokenPipeError, BlockingIOError):
            raise
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OutputError(
                f"standard output: results cannot be written there: {reason}: see where `>` or `|` leads"
            ) from error


class _Standard:
    """What :func:`reserve_standard_output` kept of this process's standard output."""

    kept: TextIO | None = None


def prepare_standard_streams() -> None:
    """Open those standard streams that were closed (``>&-``), and have standard output raise :class:`OutputError`.

    A descriptor that is free goes to the next file that is opened, where prints would end up. In place of a closed
    standard output there is a file that cannot be written to: nobody shall take results for written that are not.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)  # the lowest that is free: the one that was closed
            os.set_inheritable(descriptor, True)
            if name == "stdout":
                sys.stdout = _results_text(descriptor, "utf-8")
            else:
                setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif name == "stdout" and _is_file(sys.stdout):
            sys.stdout.flush()
            sys.stdout = _results_text(sys.stdout.fileno(), sys.stdout.encoding, closes=False)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ERRORS)


def _is_file(stream: TextIO) -> bool:
    """Whether what is written there goes to a descriptor, and nowhere else."""
    buffer = getattr(stream, "buffer", None)
    return isinstance(getattr(buffer, "raw", buffer), io.FileIO)


def _results_text(descriptor: int, encoding: str, *, closes: bool = True) -> TextIO:
    file = _ResultsFile(descriptor, "w", closefd=closes)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding=encoding, errors=_ERRORS, line_buffering=file.isatty())


def reserve_standard_output() -> None:
    """Keep standard output for results: what anything else writes there from now on goes to standard error.

    Engines' libraries write there: ExLlamaV2 says that it compiles, a compiler is another process, and code in C knows
    nothing of ``sys.stdout``. Who reads JSON lines must see none of it. Where ``sys.stdout`` is not this process's own
    standard output, as in tests, nothing changes.
    """
    try:
        own = sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return
    if not own or _Standard.kept is not None:
        return
    sys.stdout.flush()
    _Standard.kept = _results_text(os.dup(1), sys.stdout.encoding)
    os.dup2(2, 1)


class _TerminalFile:
    """Standard output that is a terminal, for lines that are written as they are: what a terminal would obey is written
    as ``\\u009b``, which in JSON means the same. ``buffer`` takes bytes as they are, where somebody asked for them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str, /) -> int:
        """As of any file."""
        shown = "".join(char if legible(char) == char else f"\\u{ord(char):04x}" for char in text)
        self._file.write(text if text.isprintable() else shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def results_file() -> TextIO:
    """Where results are written: standard output."""
    file = _standard_output()
    return cast(TextIO, _TerminalFile(file)) if file.isatty() else file


def _standard_output() -> TextIO:
    return sys.stdout if _Standard.kept is None else _Standard.kept


def flush_results() -> None:
    """Write what is still buffered, while somebody can hear that it cannot be written.

    Raises:
        BrokenPipeError: whoever read the results has gone.
        OutputError: the disk is full, or standard output was closed.
    """
    _standard_output().flush()


def discard_results() -> None:
    """Have what is still buffered go nowhere, so that Python does not try to write it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _standard_output().fileno())


def writable(file: Path) -> Path:
    """``file``, or where standard output is now, if that is what ``file`` names."""
    if _Standard.kept is not None and str(file) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        return Path(f"/dev/fd/{_Standard.kept.fileno()}")
    return file


class _Pipe(Console):
    """A console on which nothing that is printed commands the terminal, but for what ``rich`` says itself.

    Not only where it is a terminal: what goes to a pipe or a file is often looked at on one. Programs read JSON.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As of any console."""
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
    file = _standard_output()
    width = None if file.isatty() else 1_000
    return _Pipe(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def told() -> Console:
    """Standard error."""
    return _Pipe(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def table(*columns: str, right: Collection[str] = ()) -> Table:
    """An empty table; the columns in ``right`` hold numbers. On a narrow terminal cells are folded, never cut."""
    made = Table(box=None, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def tell(line: str) -> None:
    """A line about how it goes."""
    told().print(escaped(line))


def complain(message: str, *, severity: str = "error") -> None:
    """``error: …`` on standard error."""
    colour = "bold red" if severity == "error" else "bold yellow"
    told().print(Text.assemble((f"{severity}: ", colour), escaped(message)))


def bold(console: Console) -> bool:
    """Whether colours can be shown there; else entities are marked with brackets."""
    return console.is_terminal and not console.no_color


def colour_of(label: str) -> str:
    """The colour of an entity type: always the same one."""
    key = label.lower()
    return _FAMILIAR.get(key) or _OTHERS[zlib.crc32(key.encode()) % len(_OTHERS)]


def marked(text: str, marks: Iterable[Mark], console: Console) -> Text:
    """``text`` with its entities in colours, each followed by its type; or in brackets where there are no colours."""
    if not bold(console):
        return Text(plainly_marked(text, marks))
    shown = Text()
    open_marks: list[Mark] = []
    for piece, opens, closes in _pieces(legible(text), marks):
        for mark in closes:
            open_marks.remove(mark)
            shown.append(f" {mark.type} ", f"italic black on {colour_of(mark.type)}")
        open_marks.extend(opens)
        shown.append(piece, f"bold black on {colour_of(open_marks[-1].type)}" if open_marks else "")
    return shown


def plainly_marked(text: str, marks: Iterable[Mark]) -> str:
    """``[Ada Lovelace|person] was born in [London|location].``"""
    return "".join(
        "".join(f"|{mark.type}]" for mark in closes) + "[" * len(opens) + piece
        for piece, opens, closes in _pieces(legible(text), marks)
    )


def _pieces(text: str, marks: Iterable[Mark]) -> Iterable[tuple[str, list[Mark], list[Mark]]]:
    """The text cut wherever a mark begins or ends: each piece, which marks begin with it, which end before it."""
    known = sorted(marks, key=lambda mark: (mark.start, -mark.end))
    cuts = sorted({0, len(text), *(mark.start for mark in known), *(mark.end for mark in known)})
    for cut, following in zip(cuts, [*cuts[1:], len(text)], strict=True):
        opens = [mark for mark in known if mark.start == cut]
        closes = [mark for mark in reversed(known) if mark.end == cut]
        yield text[cut:following], opens, closes
