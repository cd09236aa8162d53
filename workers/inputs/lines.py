"""Lines of bytes, and the text in them: line ends, byte order marks, encodings, bytes that are no text.

Bytes are cut into lines before they are decoded, so that a line that cannot be read is known by its number, by where it
begins in the file, and byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from workers.inputs.encodings import InputError, begins_mark, resolve_encoding, shown_encoding

__all__ = ["BadRecord", "Decoder", "LineSplitter", "RawLine", "lines_of", "whole_text"]

_CHUNK: Final = 1 << 18
_MAX_LINE: Final = 1 << 26
"""Bytes. Nobody's document is that long, and a file without line ends must not fill the memory."""

_REPLACEMENT: Final = "\ufffd"


class RawLine(NamedTuple):
    """A line of a file."""

    number: int
    """From 1."""
    offset: int
    """Where it begins: bytes from the file's first, which is 0."""
    raw: bytes
    """With its line end, if it has one; without a byte order mark."""
    encoding: str
    origin: str = ""
    """Tells the files apart that a followed name has had; "" where there is only one."""

    @property
    def end(self) -> bytes:
        """What ends a line in this encoding."""
        return "\n".encode(self.encoding)

    @property
    def next_number(self) -> int:
        """Of the line behind it; it may be a record of several."""
        return self.number + max(1, self.raw.count(self.end))


class BadRecord(InputError):  # noqa: N818  # part of the input, and an error only where nobody leaves it out
    """A line (in CSV perhaps several) that is no document.

    Args:
        name: the file's.
        line: the record's lines as one, byte for byte; number and place are the first one's.
        reason: what is wrong, and how to mend it.
        prelude: what has to come before it in a file of such records: a byte order mark, the names of CSV's columns.
    """

    def __init__(self, name: str, line: RawLine, reason: str, *, prelude: bytes = b"") -> None:
        super().__init__(f"{name}:{line.number}: {reason}")
        self.name = name
        self.line = line
        self.reason = reason
        self.prelude = prelude


class LineSplitter:
    """Cuts bytes into lines as they come; the encoding is found by the first of them.

    Args:
        name: the file's, for errors.
        encoding: as :func:`~workers.inputs.encodings.known_encoding` names it; None: by the byte order mark, else
        UTF-8.
    """

    def __init__(self, name: str, encoding: str | None = None) -> None:
        self._name = name
        self._asked = encoding
        self._encoding: str | None = None
        self._end = b"\n"
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._number = 0
        self._offset = 0

    @property
    def unfinished(self) -> int:
        """Bytes of a line that has no end yet."""
        return self._begun_bytes

    def skip(self, count: int) -> None:
        """The file goes on ``count`` bytes further on."""
        self._offset += count

    def go_on(self, encoding: str, number: int, offset: int) -> None:
        """What comes begins there: with the line of that number, in a file whose first bytes are known."""
        self._encoding = encoding
        self._end = "\n".encode(encoding)
        self._number = number - 1
        self._offset = offset

    def feed(self, data: bytes) -> list[RawLine]:
        """The lines that ``data`` ends.

        Raises:
            InputError: as of :func:`~workers.inputs.encodings.resolve_encoding`, or a line is too long to be one.
        """
        if self._encoding is None:
            data = b"".join([*self._begun, data])
            # A mark may come in pieces, and UTF-32's begins as UTF-16's does.
            if begins_mark(data):
                self._begun, self._begun_bytes = [data] if data else [], len(data)
                return []
            data = self._begin(data)
        return self._cut(data)

    def finish(self) -> list[RawLine]:
        """The last line, if it has no end."""
        rest = b"".join(self._begun)
        self._begun, self._begun_bytes = [], 0
        if self._encoding is None:
            if not rest:
                return []
            rest = self._begin(rest)
        return [self._line(rest)] if rest else []

    def _begin(self, data: bytes) -> bytes:
        self._begun, self._begun_bytes = [], 0
        self._encoding, mark = resolve_encoding(data, self._asked, self._name)
        self._end = "\n".encode(self._encoding)
        self._offset += len(mark)
        return data[len(mark) :]

    def _cut(self, data: bytes) -> list[RawLine]:
        begun, width = self._begun_bytes, len(self._end)
        if width > 1 and begun:
            # The unit that a character is made of may be torn between two pieces.
            data = b"".join([*self._begun, data])
            self._begun, self._begun_bytes, begun = [], 0, 0
        lines: list[RawLine] = []
        start = 0
        while (at := self._find_end(data, start)) >= 0:
            piece = data[start:at]
            if self._begun:
                piece = b"".join([*self._begun, piece])
                self._begun, self._begun_bytes = [], 0
            lines.append(self._line(piece))
            start = at
        if start < len(data):
            self._begun.append(data[start:])
            self._begun_bytes += len(data) - start
        if self._begun_bytes > _MAX_LINE:
            raise InputError(
                f"{self._name}:{self._number + 1}: is longer than {_MAX_LINE >> 20} MiB: is this a file of lines?"
            )
        return lines

    def _find_end(self, data: bytes, start: int) -> int:
        """Behind the first line end from ``start`` on; -1: there is none."""
        width = len(self._end)
        at = data.find(self._end, start)
        while at >= 0 and (at - start) % width:
            at = data.find(self._end, at + 1)
        return at + width if at >= 0 else -1

    def _line(self, raw: bytes) -> RawLine:
        self._number += 1
        line = RawLine(self._number, self._offset, raw, self._encoding or "utf-8")
        self._offset += len(raw)
        return line


class Decoder:
    """Bytes into text; what is no text is an error, or is replaced and counted.

    ``replaced`` counts the U+FFFD that were written, ``lines`` those that hold one; ``first`` says where the first is.
    """

    def __init__(self, name: str = "", *, replace: bool = False) -> None:
        self.name = name
        """The file's, for errors."""
        self.replaced = 0
        self.lines = 0
        self.first: str | None = None
        self._replace = replace

    def text(self, line: RawLine, *, prelude: bytes = b"") -> str:
        """The text of a line, with its end.

        Raises:
            BadRecord: names the byte.
        """
        try:
            return line.raw.decode(line.encoding)
        except UnicodeDecodeError as error:
            if not self._replace:
                reason = _no_text(line, error)
                raise BadRecord(self.name, line, reason, prelude=prelude) from error
        except UnicodeError as error:  # of codecs that do not say where
            if not self._replace:
                reason = f"is not {shown_encoding(line.encoding)}: {error}"
                raise BadRecord(self.name, line, reason, prelude=prelude) from error
        text = line.raw.decode(line.encoding, "replace")
        self.replaced += text.count(_REPLACEMENT) - _replacements(line)
        self.lines += 1
        self.first = self.first or f"{self.name}:{line.number}"
        return text


def _replacements(line: RawLine) -> int:
    """U+FFFD that the file itself holds."""
    try:
        return line.raw.count(_REPLACEMENT.encode(line.encoding))
    except UnicodeEncodeError:
        return 0


def _no_text(line: RawLine, error: UnicodeDecodeError) -> str:
    return (
        f"is not {shown_encoding(line.encoding)}: {_shown_bytes(error)} at byte {error.start} of the line, "
        f"byte {line.offset + error.start} of the file (the first is 0): {_MEND}"
    )


_MEND: Final = "name its encoding (--encoding latin-1, cp1252, …), or read such bytes as U+FFFD (--errors replace)"


def _shown_bytes(error: UnicodeDecodeError) -> str:
    return " ".join(f"0x{byte:02X}" for byte in error.object[error.start : min(error.end, error.start + 8)])


def lines_of(source: Path | IO[bytes], name: str, encoding: str | None) -> Iterator[RawLine]:
    """The lines of a file or a stream, each as soon as it is there.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    splitter = LineSplitter(name, encoding)
    for chunk in _chunks(source, name):
        yield from splitter.feed(chunk)
    yield from splitter.finish()


def whole_text(source: Path | IO[bytes], name: str, encoding: str | None, decoder: Decoder) -> str:
    """The whole of a file as one text, line ends and all; without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is no text; names line and byte.
    """
    data = b"".join(_chunks(source, name))
    resolved, mark = resolve_encoding(data, encoding, name)
    try:
        return decoder.text(RawLine(1, 0, data, resolved)).removeprefix("\ufeff" if mark else "")
    except BadRecord as bad:
        if not isinstance(error := bad.__cause__, UnicodeDecodeError):
            raise InputError(f"{name}: {bad.reason}") from error
        end = "\n".encode(resolved)
        before = data[: error.start]
        where = f"line {before.count(end) + 1}, byte {error.start} of the file (the first is 0)"
        raise InputError(
            f"{name}: is not {shown_encoding(resolved)}: {_shown_bytes(error)} in {where}: {_MEND}"
        ) from error


def _chunks(source: Path | IO[bytes], name: str) -> Iterator[bytes]:
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                while chunk := file.read1(_CHUNK):
                    yield chunk
        else:
            # What is there: the rest of a pipe may be hours away.
            read = getattr(source, "read1", source.read)
            while chunk := read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
