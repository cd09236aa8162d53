"""Documents from files: text lines, JSON Lines, CSV; from a growing file too. No Kafka in here.

A document's id is the one that its record gives, or is derived from its content: the same pool and text have the same
id, so that producing a file twice tags it once. Where equal lines are different documents (a log), ask for
``distinct``: the second one of equal content gets another id than the first, and the same ones again when the file is
read again.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson

from workers.inputs.document_fields import Fields
from workers.inputs.encodings import InputError
from workers.inputs.file_formats import InputFormat, format_of
from workers.inputs.follow_state import FollowState
from workers.inputs.following import followed_lines
from workers.inputs.lines import BadRecord, Decoder, RawLine, lines_of
from workers.inputs.record_files import FileRecord, RecordReader

__all__ = [
    "BadRecord",
    "Decoder",
    "Fields",
    "InputError",
    "InputFormat",
    "NewDocument",
    "derived_id",
    "format_of",
    "read_documents",
]

_REMEMBERED_TEXTS: Final = 250_000
_REMEMBERED_IDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to produce. ``line``: where it was read, if it was; ``prelude``: see :class:`FileRecord`."""

    id: str
    text: str
    pool: str | None = None
    revision: int = 0
    metadata: Mapping[str, Any] | None = None
    line: RawLine | None = field(default=None, compare=False, repr=False)
    prelude: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(cls, record: FileRecord, own_id: str, pool: str | None = None) -> NewDocument:
        """A record's document. ``own_id`` and ``pool`` are for one that names none."""
        row = record.fields
        return cls(
            row.get("id", own_id),
            row["text"],
            row.get("pool") or pool,
            row.get("revision", 0),
            row.get("metadata"),
            record.line,
            record.prelude,
        )

    def to_json(self) -> dict[str, Any]:
        """The value of its message."""
        value: dict[str, Any] = {"id": self.id, "text": self.text, "revision": self.revision}
        if self.pool is not None:
            value["pool"] = self.pool
        if self.metadata is not None:
            value["metadata"] = dict(self.metadata)
        return value


def derived_id(text: str, pool: str | None = None, *, occurrence: int = 0, place: object = None) -> str:
    """An id from the content: 24 hexadecimal digits.

    ``occurrence``: how often the content came before. ``place``: what else tells it from others of equal content.
    """
    parts = [pool, text, occurrence] if place is None else [pool, text, occurrence, place]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:24]


def refuse(bad: BadRecord) -> None:
    """Ends the reading at the first bad record."""
    raise bad


def read_documents(
    source: Path | None,
    *,
    format: InputFormat,  # noqa: A002  # what it is called everywhere else
    pool: str | None = None,
    fields: Fields = Fields(),  # noqa: B008  # immutable
    encoding: str | None = None,
    decoder: Decoder | None = None,
    from_line: int = 1,
    bad: Callable[[BadRecord], None] = refuse,
    distinct: bool = False,
    follow: bool = False,
    notice: Callable[[str], None] = lambda _: None,
    state: FollowState | None = None,
    stop: Callable[[], bool] = lambda: False,
    poll_seconds: float = 0.2,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    stdin: IO[bytes] | None = None,
) -> Iterator[NewDocument]:
    """The documents of a file, or of standard input if ``source`` is None.

    Text: one document a line, without empty ones. JSON Lines: objects as the ``documents`` schema has them. CSV and
    TSV: the first row names the columns. ``fields`` says which field or column is what. ``pool`` is for documents that
    name none.

    A byte order mark is no part of the text and tells the encoding; without one it is UTF-8, or ``encoding``. A
    ``decoder`` may replace what is no text. A record that is no document goes to ``bad``; so does one whose id another
    document of the file has (among the latest 100,000 ids), with the same revision and another text: the stream would
    leave it out. Those that begin before ``from_line`` are read, since ids may depend on them, and left out.

    ``follow`` reads a file from its beginning, or where ``state`` says, and goes on as it grows, until ``stop()``; see
    :mod:`workers.inputs.following` for files that are rotated or cut, of which ``notice`` is told.

    Raises:
        InputError: the file cannot be read; names file and line.
    """
    name = "standard input" if source is None else str(source)
    if follow and (source is None or format in (InputFormat.CSV, InputFormat.TSV)):
        raise InputError(f"{name}: only a file of text lines or JSON Lines can be followed")
    if follow and source is not None:
        lines: Iterable[RawLine] = followed_lines(
            source,
            encoding=encoding,
            notice=notice,
            state=state,
            stop=stop,
            poll_seconds=poll_seconds,
            sleep=sleep,
            monotonic=monotonic,
        )
    else:
        opened: Path | IO[bytes] = source if source is not None else sys.stdin.buffer if stdin is None else stdin
        lines = lines_of(opened, name, encoding)

    seen = _WantedLines(from_line)

    def bad_from_line(record: BadRecord) -> None:
        if seen.wants(record.line.number):
            bad(record)

    decoder = decoder or Decoder()
    decoder.name = name
    reader = RecordReader(name, format, fields, decoder, bad_from_line)
    ids = _Ids(name, pool, distinct=distinct)
    for record in reader.records(seen.watch(lines)):
        try:
            document = ids.document(record)
        except BadRecord as error:
            bad_from_line(error)
            continue
        if seen.wants(record.line.number):
            yield document
    if seen.last + 1 < from_line and not follow:
        raise InputError(f"{name}: has {seen.last} lines: there is no line {from_line} to go on from")


class _WantedLines:
    """Which lines are wanted: those from a number on, and all of a file that has taken the place of the first one."""

    def __init__(self, from_line: int) -> None:
        self.last = 0
        """Number of the line that was read last."""
        self._from_line = from_line
        self._origin: str | None = None
        self._replaced = False

    def watch(self, lines: Iterable[RawLine]) -> Iterator[RawLine]:
        """The lines, noted as they are read."""
        for line in lines:
            if self._origin is None:
                self._origin = line.origin
            self._replaced = self._replaced or line.origin != self._origin
            self.last = line.number
            yield line

    def wants(self, number: int) -> bool:
        """Whether a record that begins on that line, the latest one, is wanted."""
        return self._replaced or number >= self._from_line


class _Ids:
    """Gives documents their ids. Its memory is bounded: files, and pipes, may be endless."""

    def __init__(self, name: str, pool: str | None, *, distinct: bool) -> None:
        self._name = name
        self._pool = pool
        self._distinct = distinct
        self._seen: Counter[bytes] = Counter()
        self._forgotten = 0
        self._given: OrderedDict[tuple[str, int], tuple[bytes, int]] = OrderedDict()

    def document(self, record: FileRecord) -> NewDocument:
        """The document.

        Raises:
            BadRecord: another document has its id.
        """
        row = record.fields
        text, pool = row["text"], row.get("pool") or self._pool
        if "id" in row:
            self._check_given(row["id"], row.get("revision", 0), text, pool, record)
            return NewDocument.of(record, row["id"], pool)
        return NewDocument.of(record, self._derived(text, pool, record.line), pool)

    def _derived(self, text: str, pool: str | None, line: RawLine) -> str:
        if not self._distinct:
            return derived_id(text, pool)
        if line.origin:
            # A followed file is read again after a restart, perhaps when it has been rotated: counting would not lead
            # to the same ids.
            return derived_id(text, pool, place=[line.origin, line.offset])
        content = _digest(pool, text)
        if content not in self._seen and len(self._seen) == _REMEMBERED_TEXTS:
            # What is forgotten must not be taken for the first of its kind again.
            self._seen.clear()
            self._forgotten += 1
        occurrence = self._seen[content]
        self._seen[content] += 1
        return derived_id(text, pool, occurrence=occurrence, place=self._forgotten or None)

    def _check_given(self, record_id: str, revision: int, text: str, pool: str | None, record: FileRecord) -> None:
        content = _digest(pool, text)
        known, number = self._given.setdefault((record_id, revision), (content, record.line.number))
        if known != content:
            reason = (
                f"the id {record_id!r} (revision {revision}) is line {number}'s, with another text or pool: the stream "
                "would leave this one out: mend the id, or raise the revision"
            )
            raise BadRecord(self._name, record.line, reason, prelude=record.prelude)
        if len(self._given) > _REMEMBERED_IDS:
            self._given.popitem(last=False)


def _digest(pool: str | None, text: str) -> bytes:
    return hashlib.blake2b(orjson.dumps([pool, text]), digest_size=16).digest()
