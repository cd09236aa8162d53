"""Standard output, kept for results: whatever libraries print, and whatever becomes of who reads."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any, Final, TextIO, cast

from typing_extensions import override

from el4ner.errors import El4nerError
from workers.printable import legible

__all__ = [
    "OutputError",
    "discard_results",
    "flush_results",
    "prepare_standard_streams",
    "reserve_standard_output",
    "results_file",
    "standard_output",
    "writable",
]

_ERRORS: Final = "backslashreplace"
"""A terminal that cannot show a character is no reason to stop."""


class OutputError(El4nerError):
    """Results cannot be written to standard output."""

    code = "output"


class _ResultsFile(io.FileIO):
    """Standard output. A reader that has gone is a :class:`BrokenPipeError`, all else an :class:`OutputError`."""

    @override
    def write(self, data: Any, /) -> int:
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
        is_ours = sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return
    if not is_ours or _Standard.kept is not None:
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
        """Of any text file."""
        shown = "".join(char if legible(char) == char else f"\\u{ord(char):04x}" for char in text)
        self._file.write(text if text.isprintable() else shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def results_file() -> TextIO:
    """Where results are written: standard output."""
    file = standard_output()
    return cast(TextIO, _TerminalFile(file)) if file.isatty() else file


def standard_output() -> TextIO:
    """Standard output as it was before :func:`reserve_standard_output`, if that was called."""
    return sys.stdout if _Standard.kept is None else _Standard.kept


def flush_results() -> None:
    """Write what is still buffered, while somebody can hear that it cannot be written.

    Raises:
        BrokenPipeError: whoever read the results has gone.
        OutputError: the disk is full, or standard output was closed.
    """
    standard_output().flush()


def discard_results() -> None:
    """Have what is still buffered go nowhere, so that Python does not try to write it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output().fileno())


def writable(file: Path) -> Path:
    """``file``, or where standard output is now, if that is what ``file`` names."""
    if _Standard.kept is not None and str(file) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        return Path(f"/dev/fd/{_Standard.kept.fileno()}")
    return file
