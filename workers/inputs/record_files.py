"""Records of a file: text lines, JSON Lines, CSV and TSV; each becomes the fields of a document, or a bad record."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from el4ner.nearest import no_such
from workers.inputs.document_fields import OPTIONAL, Fields
from workers.inputs.encodings import InputError, mark_of
from workers.inputs.file_formats import InputFormat
from workers.inputs.lines import BadRecord, Decoder, RawLine

__all__ = ["FileRecord", "RecordReader"]

_MAX_FIELD: Final = 1 << 24
_BYTE_ORDER_MARK: Final = "\ufeff"
_LONGEST_SHOWN: Final = 80
_EXCEL: Final = re.compile(r"\ufeff?sep=(.)\r?\n")


class FileRecord(NamedTuple):
    """A document's fields, as the ``documents`` schema has them (``id`` only if the record has one), and its lines."""

    fields: Mapping[str, Any]
    line: RawLine
    """All of its lines as one: number and offset are the first one's."""
    prelude: bytes = b""
    """What has to come before it in a file of its own: a byte order mark, CSV's names of columns."""


class RecordReader:
    """Reads the records of one file.

    Args:
        name: the file's, for errors.
        format: what its records are.
        fields: which field is what.
        decoder: makes text of its bytes.
        bad: told of each record that is no document; what it raises ends the reading.
    """

    def __init__(
        self,
        name: str,
        format: InputFormat,  # noqa: A002  # what it is called everywhere else
        fields: Fields,
        decoder: Decoder,
        bad: Callable[[BadRecord], None],
    ) -> None:
        self._name = name
        self._format = format
        self._fields = fields
        self._decoder = decoder
        self._bad = bad

    def records(self, lines: Iterable[RawLine]) -> Iterator[FileRecord]:
        """The documents' fields, in order.

        Raises:
            InputError: CSV without the columns that are needed.
        """
        if self._format is InputFormat.TEXT:
            return self._text(lines)
        return self._json(lines) if self._format is InputFormat.JSONL else self._table(lines)

    def _text(self, lines: Iterable[RawLine]) -> Iterator[FileRecord]:
        for line, text in self._decoded(lines):
            if text.strip():
                yield FileRecord({"text": text.rstrip("\r\n")}, line, mark_of(line.encoding))

    def _json(self, lines: Iterable[RawLine]) -> Iterator[FileRecord]:
        for line, text in self._decoded(lines):
            if not text.strip():
                continue
            try:
                document = self._fields.document(_object(text))
            except ValueError as error:
                self._refuse(line, str(error), mark_of(line.encoding))
            else:
                yield FileRecord(document, line, mark_of(line.encoding))

    def _decoded(self, lines: Iterable[RawLine]) -> Iterator[tuple[RawLine, str]]:
        """Without those that are no text. Files that were joined may have byte order marks within."""
        for line in lines:
            try:
                text = self._decoder.text(line, prelude=mark_of(line.encoding))
            except BadRecord as bad:
                self._bad(bad)
            else:
                yield line, text.lstrip(_BYTE_ORDER_MARK)

    def _table(self, lines: Iterable[RawLine]) -> Iterator[FileRecord]:
        # Python's own limit, 131,072 characters, is below what a document may have. It holds for the whole process.
        csv.field_size_limit(_MAX_FIELD)
        delimiter = "\t" if self._format is InputFormat.TSV else self._fields.delimiter
        taken = _TakenLines(lines, self._decoder)
        # Excel's own first line, which says by what the others are separated: kept records need it as well.
        excel = b""
        if (separator := _EXCEL.fullmatch(taken.peek())) is not None:
            next(taken)
            delimiter = separator[1]
            excel = taken.joined().raw
        reader = csv.reader(taken, strict=True, delimiter=delimiter)
        header: RawLine | None = None
        columns: list[str] = []
        prelude = b""
        while True:
            taken.clear()
            try:
                cells = next(reader)
            except StopIteration:
                if header is None:
                    raise InputError(f"{self._name}: {self._fields.no_text((), 'column')}") from None
                return
            except csv.Error as error:
                reason = _csv_reason(error, taken)
                if header is None:
                    raise InputError(f"{self._name}:1: {reason}") from error
                self._refuse(taken.joined(), reason, prelude)
                continue
            if not cells:
                continue
            if header is None:
                if taken.bad is not None:
                    raise taken.bad
                header = taken.joined()
                columns = self._columns([cell.lstrip(_BYTE_ORDER_MARK) for cell in cells])
                prelude = mark_of(header.encoding) + excel + header.raw
                continue
            record = taken.joined()
            if taken.bad is not None:
                self._refuse(record, taken.bad.reason, prelude)
                continue
            try:
                document = self._row(columns, cells)
            except ValueError as error:
                self._refuse(record, str(error), prelude)
            else:
                yield FileRecord(document, record, prelude)

    def _columns(self, columns: list[str]) -> list[str]:
        """The header's names; those without one by their place, if they are handed on.

        Raises:
            InputError: they are not what a table of documents has.
        """
        fields = self._fields
        if fields.text not in columns:
            delimiter = next((sign for sign in (",", ";", "\t", "|") if len(columns) == 1 and sign in columns[0]), None)
            if delimiter is not None:
                header = columns[0] if len(columns[0]) <= _LONGEST_SHOWN else f"{columns[0][:_LONGEST_SHOWN]}…"
                raise InputError(
                    f"{self._name}: there is no column {fields.text!r}, but a single one, {header!r}; is it separated "
                    f"by {delimiter!r}? --delimiter says so"
                )
            raise InputError(f"{self._name}: {fields.no_text(columns, 'column')}")
        if fields.id != "id" and fields.id not in columns:
            raise InputError(f"{self._name}: {no_such('column', fields.id, columns)}")
        if twice := [name for number, name in enumerate(columns) if name in columns[:number] and name]:
            raise InputError(f"{self._name}: the column {twice[0]!r} is there twice: which one is meant?")
        named = [name or f"column {number}" for number, name in enumerate(columns, 1)]
        unknown = [name for name in named if name not in fields.known]
        if unknown and not fields.metadata:
            if "" in columns and unknown[0] == f"column {columns.index('') + 1}":
                raise InputError(
                    f"{self._name}: {unknown[0]} has no name: take it out (it may be the numbers of rows, or "
                    "a delimiter too many), or --metadata hands it on as metadata"
                )
            raise InputError(f"{self._name}: {fields.no_field(unknown[0], 'column')}")
        return named

    def _row(self, columns: list[str], cells: list[str]) -> dict[str, Any]:
        if len(cells) != len(columns):
            more = ": a text with the delimiter in it has to be in quotes" if len(cells) > len(columns) else ""
            raise ValueError(f"expected {len(columns)} columns, got {len(cells)}{more}")
        row: dict[str, Any] = dict(zip(columns, cells, strict=True))
        for name in (self._fields.id, *OPTIONAL):
            # An empty cell is how a table says "none".
            if row.get(name) == "" and name != self._fields.text:
                del row[name]
        if "revision" in row:
            if not (row["revision"].isascii() and row["revision"].isdigit()):
                raise ValueError(f"the revision {row['revision']!r} is no whole number")
            row["revision"] = int(row["revision"])
        if "metadata" in row:
            try:
                row["metadata"] = orjson.loads(row["metadata"])
            except orjson.JSONDecodeError as error:
                raise ValueError(f"the column 'metadata' has to hold a JSON object: {error}") from error
        return self._fields.document(row, "column")

    def _refuse(self, line: RawLine, reason: str, prelude: bytes) -> None:
        self._bad(BadRecord(self._name, line, reason, prelude=prelude))


class _TakenLines:
    """Hands lines to the CSV reader and keeps those of the record at hand."""

    def __init__(self, lines: Iterable[RawLine], decoder: Decoder) -> None:
        self.bad: BadRecord | None = None
        """The first of the record's lines that is no text."""
        self._lines: Iterator[RawLine] = iter(lines)
        self._decoder = decoder
        self._taken: list[RawLine] = []

    def clear(self) -> None:
        """A new record begins."""
        self._taken = []
        self.bad = None

    def joined(self) -> RawLine:
        """The record's lines as one."""
        first = self._taken[0]
        if len(self._taken) == 1:
            return first
        return first._replace(raw=b"".join(line.raw for line in self._taken))

    def peek(self) -> str:
        """The next line, which is still to come; "" at the end. Bytes that are no text are read as U+FFFD."""
        line = next(self._lines, None)
        if line is None:
            return ""
        self._lines = itertools.chain([line], self._lines)
        return line.raw.decode(line.encoding, "replace")

    @property
    def last(self) -> int:
        """Number of the record's last line."""
        return self._taken[-1].number

    def __iter__(self) -> _TakenLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        try:
            return self._decoder.text(line)
        except BadRecord as bad:
            self.bad = self.bad or bad
            # Read on, so that the record ends where it ends.
            return line.raw.decode(line.encoding, "replace")


def _object(text: str) -> Mapping[str, Any]:
    """The JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        hint = ""
        if text.strip() in ("{", "["):
            hint = ": one object a line is needed: `jq -c .` (of an array: `jq -c '.[]'`) makes lines of such a file"
        place = f"at character {error.pos + 1} of the line" if error.pos < len(text.rstrip()) else "at the line's end"
        raise ValueError(f"is no JSON: {error.msg}, {place}{hint}") from error
    if isinstance(row, Mapping):
        return row
    kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(row), "a number")
    hint = ": one object a line is needed: `jq -c '.[]'` makes lines of an array" if isinstance(row, list) else ""
    raise ValueError(f"is {kind}, not a JSON object{hint}")


def _csv_reason(error: csv.Error, taken: _TakenLines) -> str:
    reason = str(error)
    if "expected after" in reason:
        return f"{reason}: a quote inside of a cell in quotes has to be written twice"
    if "end of data" in reason:
        return f"{reason}: a quote opens here, and none closes it to the end of the file, line {taken.last}"
    if "new-line character" in reason:
        return "holds a carriage return without a line feed: if that ends its lines, `tr '\\r' '\\n'` mends the file"
    return reason
