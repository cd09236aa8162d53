"""Documents from files: text lines, JSON Lines, CSV; from a growing file too. No Kafka in here.

A document's id is the one that its line gives, or is derived from its content: the same pool and text have the same id,
so that producing a file twice tags it once. Where equal lines are different documents (a log), ask for ``distinct``:
the second one of equal content gets another id than the first, and the same ones again when the file is read again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final

import orjson

from el4ner.errors import El4nerError, MessageError
from workers import schemas
from workers.topics import Topic

__all__ = ["InputError", "InputFormat", "NewDocument", "derived_id", "format_of", "read_documents"]

_CHUNK: Final = 1 << 16
_MAX_FIELD: Final = 1 << 24


class InputError(El4nerError):
    """A file cannot be read, or a line of it is no document; the message names file and line."""

    code = "input"


class InputFormat(StrEnum):
    """What a file's lines are."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to produce."""

    id: str
    text: str
    pool: str | None = None
    revision: int = 0
    metadata: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The value of its message."""
        value: dict[str, Any] = {"id": self.id, "text": self.text, "revision": self.revision}
        if self.pool is not None:
            value["pool"] = self.pool
        if self.metadata is not None:
            value["metadata"] = dict(self.metadata)
        return value


def format_of(path: Path) -> InputFormat:
    """By the file's name: ``.csv``, ``.jsonl`` (or ``.ndjson``), otherwise text."""
    suffixes = {".csv": InputFormat.CSV, ".jsonl": InputFormat.JSONL, ".ndjson": InputFormat.JSONL}
    return suffixes.get(path.suffix.lower(), InputFormat.TEXT)


def derived_id(text: str, pool: str | None = None, *, occurrence: int = 0) -> str:
    """An id from the content: 24 hexadecimal digits. ``occurrence``: how often the content came before."""
    return hashlib.sha256(orjson.dumps([pool, text, occurrence])).hexdigest()[:24]


def read_documents(
    source: Path | None,
    *,
    format: InputFormat,  # noqa: A002  # what it is called everywhere else
    pool: str | None = None,
    column: str = "text",
    id_column: str | None = None,
    distinct: bool = False,
    follow: bool = False,
    stop: Callable[[], bool] = lambda: False,
    poll_seconds: float = 0.2,
    sleep: Callable[[float], None] = time.sleep,
    stdin: IO[bytes] | None = None,
) -> Iterator[NewDocument]:
    """The documents of a file, or of standard input if ``source`` is None.

    Text: one document a line, without empty ones. JSON Lines: objects as the ``documents`` schema has them. CSV: the
    first row names the columns; ``column`` is the text, ``id_column`` the id, the others become metadata. ``pool`` is
    for documents that name none. Bytes that are no UTF-8 are read as U+FFFD in text, and refused elsewhere.

    ``follow`` reads a file from its beginning and goes on as it grows, until ``stop()``; it goes on with the new file
    if the file is replaced (rotated), and from the beginning if it is cut. A last line without an end is waited for.

    Raises:
        InputError: names file and line.
    """
    name = "standard input" if source is None else str(source)
    if follow and (source is None or format is InputFormat.CSV):
        raise InputError(f"{name}: only a file of text lines or JSON Lines can be followed")
    lines: Iterable[bytes]
    if source is None:
        lines = sys.stdin.buffer if stdin is None else stdin
    elif follow:
        lines = _followed(source, stop, poll_seconds, sleep)
    else:
        lines = _lines(source)
    rows = {
        InputFormat.TEXT: lambda: _from_text(lines),
        InputFormat.JSONL: lambda: _from_jsonl(lines, name),
        InputFormat.CSV: lambda: _from_csv(lines, name, column, id_column),
    }[format]()
    seen: Counter[tuple[str | None, str]] = Counter()
    for row in rows:
        own_pool = row.get("pool") or pool
        found = row.get("id")
        if found is None:
            occurrence = 0
            if distinct:
                occurrence = seen[own_pool, row["text"]]
                seen[own_pool, row["text"]] += 1
            found = derived_id(row["text"], own_pool, occurrence=occurrence)
        yield NewDocument(found, row["text"], own_pool, row.get("revision", 0), row.get("metadata"))


def _from_text(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.strip():
            yield {"text": text}


def _from_jsonl(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            schemas.validate(Topic.DOCUMENTS.value, row)
        except (orjson.JSONDecodeError, MessageError) as error:
            raise InputError(f"{name}:{number}: {error}") from error
        yield row


def _from_csv(lines: Iterable[bytes], name: str, column: str, id_column: str | None) -> Iterator[dict[str, Any]]:
    number = 0
    # Python's own limit, 131,072 characters, is below what a document may have. It holds for the whole process.
    csv.field_size_limit(_MAX_FIELD)

    def decoded() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{name}:{number}: is not UTF-8") from error

    reader = csv.DictReader(decoded(), strict=True)
    wanted = [column, *([id_column] if id_column is not None else [])]
    try:
        columns = reader.fieldnames or []
        for one in wanted:
            if one not in columns:
                raise InputError(f"{name}: there is no column {one!r}; there are: {', '.join(columns) or 'none'}")
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{name}:{number}: expected {len(columns)} columns")
            metadata = {key: value for key, value in row.items() if key not in wanted}
            document: dict[str, Any] = {"text": row[column], "metadata": metadata or None}
            if id_column is not None and row[id_column]:
                document["id"] = row[id_column]
            yield document
    except csv.Error as error:
        raise InputError(f"{name}:{number}: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _followed(
    path: Path, stop: Callable[[], bool], poll_seconds: float, sleep: Callable[[float], None]
) -> Iterator[bytes]:
    """The lines of a file that grows. A rotated file is read to its end before the new one is begun."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file to follow")
    while True:
        try:
            with path.open("rb") as file:
                yield from _until_replaced(file, path, stop, poll_seconds, sleep)
        except FileNotFoundError:
            # Between the old file's renaming and the new one's creation.
            sleep(poll_seconds)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if stop():
            return


def _until_replaced(
    file: io.BufferedReader, path: Path, stop: Callable[[], bool], poll_seconds: float, sleep: Callable[[float], None]
) -> Iterator[bytes]:
    begun = b""
    while True:
        chunk = file.read(_CHUNK)
        if chunk:
            *whole, begun = (begun + chunk).split(b"\n")
            yield from (line + b"\n" for line in whole)
            continue
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)
            begun = b""
            continue
        try:
            now = path.stat()
            replaced = (now.st_dev, now.st_ino) != _identity(file)
        except FileNotFoundError:
            replaced = False
        if replaced or stop():
            # Nobody writes the rest of a line into a file that was put away; look once more for what came meanwhile.
            rest = file.read()
            if rest:
                *whole, begun = (begun + rest).split(b"\n")
                yield from (line + b"\n" for line in whole)
            if begun and replaced:
                yield begun
            return
        sleep(poll_seconds)


def _identity(file: io.BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
