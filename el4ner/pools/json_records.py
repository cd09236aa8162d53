"""JSON files as records with the line that each is on: JSON Lines, an array, or one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from el4ner.pools.json_array import array_elements, is_large_array
from el4ner.pools.read_options import LeftOut, lines_of

__all__ = ["JsonRecord", "json_records"]

_GAP: Final = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A value of JSON; ``where`` is ``file:line``, with the number of an element that is not its line's first."""

    where: str
    value: Any


def json_records(path: Path) -> Iterator[JsonRecord | LeftOut]:
    """The records of a file; a line that is no JSON is left out, with its reason. Lines are read one by one,
    and so are the elements of a large array.

    A file is JSON Lines if its lines are JSON by themselves, whatever its name ends with: tools export both as
    ``.json``. The elements of an array, and of ``{"annotations": […]}``, are records.

    Raises:
        PoolError: the file cannot be read.
    """
    if is_large_array(path):
        yield from _records_of_array(path)
        return
    if _opens_with_a_record(path):
        yield from _records_of_lines(path, lines_of(path))
        return
    lines = list(lines_of(path))
    document = _document(lines)
    if document is not None:
        yield from _elements(path, *document)
        return
    if (broken := _broken_document(lines)) is not None:
        number, reason = broken
        yield LeftOut(f"{path}:{number}", reason)
        return
    yield from _records_of_lines(path, lines)


def _records_of_array(path: Path) -> Iterator[JsonRecord | LeftOut]:
    place = _PlaceInArray(path)
    for line, element in array_elements(path):
        where = place.of(line)
        if isinstance(element, str):
            yield LeftOut(f"{path}:{line}", f"is not JSON: {element}")
            continue
        try:
            yield JsonRecord(where, orjson.loads(element))
        except orjson.JSONDecodeError as error:
            yield LeftOut(where, f"is not JSON: {error.msg}")


def _records_of_lines(path: Path, lines: Iterable[str | UnicodeDecodeError]) -> Iterator[JsonRecord | LeftOut]:
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if isinstance(line, UnicodeDecodeError):
            yield LeftOut(where, f"is not UTF-8: {line.reason} at byte {line.start}")
        elif line.strip():
            try:
                yield JsonRecord(where, orjson.loads(line))
            except orjson.JSONDecodeError as error:
                yield LeftOut(where, f"is not JSON: {error.msg}, character {error.colno}")


def _opens_with_a_record(path: Path) -> bool:
    """Whether the first line that is not blank is a record by itself: then each line is one, and none has to wait."""
    first = next((line for line in lines_of(path) if isinstance(line, UnicodeDecodeError) or line.strip()), None)
    if not isinstance(first, str) or first.lstrip()[0] not in "[{":
        return False
    alone = _parsed(first)
    return alone is not None and not _is_document(alone)


def _document(lines: list[str | UnicodeDecodeError]) -> tuple[str, Any] | None:
    """The text and the value of a file that is one array or object over several lines, or an array of objects."""
    if _first(lines) is None:
        return None
    text = "".join(line for line in lines if isinstance(line, str))
    value = _parsed(text) if all(isinstance(line, str) for line in lines) else None
    return None if value is None else (text, value)


def _first(lines: list[str | UnicodeDecodeError]) -> str | None:
    """The first line that is not blank, if it opens an array or an object."""
    first = next((line for line in lines if isinstance(line, UnicodeDecodeError) or line.strip()), None)
    return first if isinstance(first, str) and first.lstrip()[0] in "[{" else None


def _broken_document(lines: list[str | UnicodeDecodeError]) -> tuple[int, str] | None:
    """Line and reason, where one value goes over several lines and is no JSON: no line would make sense by itself."""
    first = _first(lines)
    if first is None or first.rstrip()[-1] not in "[{,":
        return None
    text = "".join(line for line in lines if isinstance(line, str))
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        objects = error.msg.startswith("unexpected content after document")
        advice = ": `jq -c .` makes a line of each object" if objects else ""
        return error.lineno, f"is not JSON: {error.msg}, character {error.colno}{advice}"
    return None  # it is, but for the bytes of some lines


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _is_document(value: Any) -> bool:
    """Whether a line is more than a record: an array of records, or one that wraps them."""
    return _wraps(value) or (isinstance(value, list) and all(isinstance(item, dict | list) for item in value))


def _wraps(value: Any) -> bool:
    """What NER Annotator writes: ``{"classes": […], "annotations": [[text, {"entities": …}], …]}``."""
    return isinstance(value, dict) and "classes" in value and isinstance(value.get("annotations"), list)


class _PlaceInArray:
    """``file:line`` of each element, and its number where another begins on the same line: tools write whole arrays
    on one line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._line = 0

    def of(self, line: int) -> str:
        """The place of the next element, which begins on this line."""
        self._number += 1
        same_line, self._line = line == self._line, line
        return f"{self._path}:{line}" + (f", element {self._number}" if same_line else "")


def _elements(path: Path, text: str, value: Any) -> Iterator[JsonRecord]:
    place = _PlaceInArray(path)
    if _wraps(value):
        for item in value["annotations"]:
            where = place.of(1)
            if item is not None:  # a text that was passed over
                yield JsonRecord(where, item)
    elif isinstance(value, list):
        for line, item in zip(_lines_of_elements(text, len(value)), value, strict=True):
            yield JsonRecord(place.of(line), item)
    else:
        yield JsonRecord(f"{path}:1", value)


def _lines_of_elements(text: str, count: int) -> list[int]:
    """On which line each element of the array begins. ``text`` is valid JSON."""
    scanner = json.JSONDecoder()
    position = text.index("[") + 1
    lines, line, counted = [], 1, 0
    try:
        for _ in range(count):
            position = _GAP.match(text, position).end()  # type: ignore[union-attr]
            line += text.count("\n", counted, position)
            counted = position
            lines.append(line)
            _, position = scanner.raw_decode(text, position)
    except (ValueError, RecursionError):
        return [1] * count  # nested too deeply for Python's reader: the place is less exact, nothing else
    return lines
