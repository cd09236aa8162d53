"""What is to be tagged: an argument, a file or standard input, as documents; as they come."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, Final, TypeVar

import typer

from el4ner.errors import DocumentError
from el4ner.types import Document

__all__ = ["as_they_come", "documents_of"]

_FILE_SUFFIXES: Final = frozenset({".csv", ".jsonl", ".log", ".md", ".ndjson", ".txt"})

T = TypeVar("T")


def documents_of(
    argument: str | None, *, lines: bool, unreadable: Callable[[DocumentError], None], stdin: IO[bytes] | None = None
) -> Iterator[Document]:
    """The documents that ``tag``'s argument means; what is no UTF-8 goes to ``unreadable``.

    An argument that is the name of a file means the file; ``-`` or none at all, standard input. Ids say where a
    document was: ``text``, ``FILE``, ``FILE:LINE``.

    Raises:
        typer.BadParameter: nothing to read, or a file that is not there.
    """
    if argument is None or argument == "-":
        source = _stdin() if stdin is None else stdin
        if argument is None and source.isatty():
            raise typer.BadParameter("give a text, a file, or - for standard input", param_hint="TEXT")
        yield from _read(source, "stdin", lines, unreadable)
        return
    path = _file(argument)
    if path is None:
        texts = argument.splitlines() if lines else [argument]
        for number, text in enumerate(texts, 1):
            if text.strip() or not lines:
                yield Document(f"text:{number}" if lines else "text", text)
        return
    try:
        with path.open("rb") as file:
            yield from _read(file, path.name, lines, unreadable)
    except OSError as error:
        raise typer.BadParameter(f"{path}: cannot be read: {error.strerror}", param_hint="FILE") from error


def as_they_come(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to ``size`` of ``items``: whatever is there, one at least. A slow pipe is not waited for.

    ``items`` is read ahead on a thread of its own, by ``size`` at most; what it raises is raised here.
    """
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=size)

    def read() -> None:
        try:
            for item in items:
                ready.put((item,))
        except BaseException as error:  # handed to the thread that can show it
            ready.put(error)
        else:
            ready.put(None)

    threading.Thread(target=read, name="input", daemon=True).start()
    ended = False
    while not ended:
        found: tuple[T] | BaseException | None = ready.get()
        batch: list[T] = []
        while True:
            if not isinstance(found, tuple):
                ended = True
                break
            batch.append(found[0])
            if len(batch) == size:
                break
            try:
                # A moment for what is on its way: a batch costs hardly more than a single document.
                found = ready.get(timeout=0.02)
            except queue.Empty:
                break
        if batch:
            yield batch
        if isinstance(found, BaseException):
            raise found


def _stdin() -> IO[bytes]:
    """Standard input, apart from ``sys.stdin``, whose lock Python wants when it ends (by Ctrl-C, say): with a thread
    still reading from it, Python would abort."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)  # a descriptor, not ours to close
    except UnsupportedOperation:  # a test's
        return sys.stdin.buffer


def _file(argument: str) -> Path | None:
    """The file that the argument names; None: it is a text.

    Raises:
        typer.BadParameter: it looks like the name of a file, but there is none, or it is a folder.
    """
    if "\n" in argument or len(argument) > 4096:
        return None
    path = Path(argument).expanduser()
    try:
        if path.is_file() or path.is_fifo() or path.is_char_device():
            return path
        folder = path.is_dir()
    except (OSError, ValueError):
        return None
    one_word = not any(char.isspace() for char in argument)
    if one_word and argument and (("/" in argument and folder) or path.suffix.lower() in _FILE_SUFFIXES):
        raise typer.BadParameter(
            f"{argument}: {'is a folder' if folder else 'there is no such file'}; to tag it as text, pipe it in",
            param_hint="FILE",
        )
    return None


def _read(source: IO[bytes], name: str, lines: bool, unreadable: Callable[[DocumentError], None]) -> Iterator[Document]:
    pieces = ((f"{name}:{number}", line) for number, line in enumerate(source, 1)) if lines else [(name, source.read())]
    for where, raw in pieces:
        try:
            text = raw.decode("utf-8-sig" if where in (name, f"{name}:1") else "utf-8")
        except UnicodeDecodeError as error:
            unreadable(DocumentError(f"{where}: is not UTF-8: {error.reason} at byte {error.start}"))
            continue
        if lines:
            text = text.rstrip("\r\n")
        if text.strip() or not lines:
            yield Document(where, text)
