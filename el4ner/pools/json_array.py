"""A large JSON array element by element: no more than one of them is in memory, and a chunk of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from el4ner.errors import PoolError

__all__ = ["array_elements", "is_large_array"]

_LARGE: Final = 16 << 20
"""Bytes from which a file is read so; a smaller one is parsed as a whole, which tells better what is wrong with it."""
_CHUNK: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OPENING: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*[\[{]")
_STRUCTURE: Final = re.compile(rb'["\[\]{},]')
_IN_STRING: Final = re.compile(rb'["\\]')


def is_large_array(path: Path) -> bool:
    """Whether the file is large, and an array of objects or of arrays."""
    try:
        if path.stat().st_size < _LARGE:
            return False
        with path.open("rb") as file:
            return _OPENING.match(file.read(_CHUNK)) is not None
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {error.strerror}") from error


def array_elements(path: Path) -> Iterator[tuple[int, bytes | str]]:
    """The line on which each element begins, and its bytes, without white space around them: not yet looked into.

    Where the array is none, what is wrong with it stands in place of an element.

    Raises:
        PoolError: the file cannot be read.
    """
    try:
        yield from _elements(path)
    except OSError as error:
        raise PoolError(f"{path}: cannot be read: {error.strerror}") from error


def _elements(path: Path) -> Iterator[tuple[int, bytes | str]]:
    with path.open("rb") as file:
        buffer = file.read(_CHUNK).removeprefix(_BYTE_ORDER_MARK)
        line, counted = 1, 0  # of the buffer's beginning, and how far its line breaks are counted
        begin, position, depth, elements, in_string = 0, 0, 0, 0, False
        while depth or not elements:
            found = (_IN_STRING if in_string else _STRUCTURE).search(buffer, position)
            if found is None:
                # What is begun is kept; it is read on by steps that grow with it.
                chunk = file.read(max(_CHUNK, len(buffer) - begin))
                if not chunk:
                    last = line + buffer.count(b"\n", counted, len(buffer))
                    yield last, "the array has no end: its last element is cut off"
                    return
                line += buffer.count(b"\n", counted, begin)
                position = max(position, len(buffer)) - begin
                buffer, begin, counted = buffer[begin:] + chunk, 0, 0
                continue
            sign, position = found.group(), found.end()
            if in_string:
                in_string = sign == b"\\"
                position += in_string  # what is escaped
            elif sign == b'"':
                in_string = True
            elif sign in b"[{":
                depth += 1
                begin = position if depth == 1 else begin
            elif depth == 1:  # a comma between two elements, or the array's end
                element = buffer[begin : found.start()]
                line += buffer.count(b"\n", counted, begin)
                yield line + _breaks_before(element), element.strip() or "an element is missing at this comma"
                if sign == b"}":
                    yield line + element.count(b"\n"), "the array ends with }, not with ]"
                line += buffer.count(b"\n", begin, position)
                begin = counted = position
                elements += 1
                depth -= sign != b","
            elif sign != b",":
                depth -= 1
        rest = buffer[position:] + file.read(_CHUNK)
        if rest.strip():
            yield line + _breaks_before(rest), "something stands behind the array: a file has one"


def _breaks_before(element: bytes) -> int:
    return element.count(b"\n", 0, len(element) - len(element.lstrip()))
