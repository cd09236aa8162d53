"""What is to be tagged: an argument, a file or standard input, as documents; as they come."""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeVar

import typer

from el4ner.errors import DocumentError
from workers.inputs.file_formats import SUFFIXES, InputFormat, format_of

if TYPE_CHECKING:
    from workers.inputs.document_fields import Fields
    from workers.inputs.documents import NewDocument
    from workers.inputs.lines import BadRecord, Decoder

__all__ = ["as_they_come", "documents_of"]

_FILE_SUFFIXES: Final = frozenset({*SUFFIXES, ".log", ".md", ".txt"})

T = TypeVar("T")


def documents_of(
    argument: str | None,
    *,
    lines: bool,
    unreadable: Callable[[DocumentError], None],
    format: InputFormat | None = None,  # noqa: A002  # what it is called everywhere else
    fields: Fields | None = None,
    encoding: str | None = None,
    decoder: Decoder | None = None,
    stdin: IO[bytes] | None = None,
) -> Iterator[NewDocument]:
    """The documents that ``tag``'s argument means; what is none goes to ``unreadable``.

    An argument that is the name of a file means the file; ``-`` or none at all, standard input. What its records are is
    told by ``format``, else by the file's name. Text is one document, or with ``lines`` one a line. An id that is not
    given says where the document was: ``text``, ``FILE``, ``FILE:LINE``.

    Raises:
        typer.BadParameter: nothing to read, or a file that is not there.
        InputError: the input cannot be read at all.
    """
    from workers.inputs.documents import NewDocument

    source: Path | IO[bytes]
    if argument is None or argument == "-":
        source = _stdin() if stdin is None else stdin
        if argument is None and source.isatty():
            raise typer.BadParameter("give a text, a file, or - for standard input", param_hint="TEXT")
        name, usual = "stdin", InputFormat.TEXT
    elif (path := _file(argument)) is not None:
        source, name, usual = path, path.name, format_of(path)
    elif format in (None, InputFormat.TEXT):
        texts = argument.splitlines() if lines else [argument]
        for number, text in enumerate(texts, 1):
            if text.strip() or not lines:
                yield NewDocument(f"text:{number}" if lines else "text", text)
        return
    else:
        source, name, usual = io.BytesIO(argument.encode("utf-8", "surrogateescape")), "text", InputFormat.TEXT
    yield from _read(source, name, format or usual, lines, unreadable, fields, encoding, decoder)


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
        arrival: tuple[T] | BaseException | None = ready.get()
        batch: list[T] = []
        while True:
            if not isinstance(arrival, tuple):
                ended = True
                break
            batch.append(arrival[0])
            if len(batch) == size:
                break
            try:
                # A moment for what is on its way: a batch costs hardly more than a single document.
                arrival = ready.get(timeout=0.02)
            except queue.Empty:
                break
        if batch:
            yield batch
        if isinstance(arrival, BaseException):
            raise arrival


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


def _read(
    source: Path | IO[bytes],
    name: str,
    format: InputFormat,  # noqa: A002  # what it is called everywhere else
    lines: bool,
    unreadable: Callable[[DocumentError], None],
    fields: Fields | None,
    encoding: str | None,
    decoder: Decoder | None,
) -> Iterator[NewDocument]:
    from workers.inputs.document_fields import Fields
    from workers.inputs.documents import NewDocument
    from workers.inputs.lines import Decoder, lines_of, whole_text
    from workers.inputs.record_files import RecordReader

    def report(bad: BadRecord) -> None:
        unreadable(DocumentError(str(bad)))

    decoder = decoder or Decoder()
    decoder.name = name
    if format is InputFormat.TEXT and not lines:
        yield NewDocument(name, whole_text(source, name, encoding, decoder))
        return
    reader = RecordReader(name, format, fields or Fields(), decoder, report)
    for record in reader.records(lines_of(source, name, encoding)):
        yield NewDocument.of(record, f"{name}:{record.line.number}")
