"""What a record is read to, and the checks that all layouts share: each error says what a key should hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from el4ner.errors import PoolError
from el4ner.nearest import no_such
from el4ner.pools.read_options import Units
from el4ner.pools.units import RawSpan

__all__ = [
    "Labelled",
    "Rejected",
    "known_keys",
    "known_span_keys",
    "list_in",
    "listed_span",
    "quoted",
    "span_of",
    "text_in",
]

_SHORT: Final = 160
_LARGEST: Final = 10**12


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its spans; ``units`` is what the layout counts in, ``auto`` where that depends on who wrote it."""

    text: str
    spans: tuple[RawSpan, ...]
    units: Units = "code-points"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that its annotator did not accept: no example of anything."""

    reason: str


def text_in(record: Mapping[str, Any], key: str = "text") -> str:
    """The text, as it is: offsets count from its first character.

    Raises:
        PoolError: it is missing, no text, or blank.
    """
    text = record.get(key)
    if not isinstance(text, str) or not text.strip():
        raise PoolError(f'needs an object with a "{key}" that is not empty' + _instead(record, key))
    return text


def list_in(record: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key.

    Raises:
        PoolError: anything else is there, null too: it does not say that there are no entities.
    """
    value = record[key]
    if not isinstance(value, list):
        raise PoolError(f'"{key}" has to be a list ([] for a text without entities), not {quoted(value)}')
    return value


def span_of(
    item: Any, *, start: str = "start", end: str = "end", label: str = "label", text: str | None = "text"
) -> RawSpan:
    """A span that is an object with these keys; ``text``, its surface, may be missing.

    Raises:
        PoolError: a key is missing, or holds something else.
    """
    if isinstance(item, Mapping):
        first, last, kind = item.get(start), item.get(end), item.get(label)
        surface = None if text is None else item.get(text)
        if is_place(first) and is_place(last) and _is_label(kind) and (surface is None or isinstance(surface, str)):
            return RawSpan(first, last, kind, surface)
    raise PoolError(f'a span needs whole numbers "{start}" and "{end}" and a string "{label}", not {quoted(item)}')


def listed_span(item: Any) -> RawSpan:
    """A span that is ``[start, end, label]``.

    Raises:
        PoolError: it is something else.
    """
    match item:
        case [first, last, label] if is_place(first) and is_place(last) and _is_label(label):
            return RawSpan(first, last, label)
        case _:
            raise PoolError(f'a span needs to be [start, end, "label"], with whole numbers, not {quoted(item)}')


def known_keys(record: Mapping[str, Any], known: Iterable[str], layout: str, hint: str = "") -> None:
    """Check that the record has no other keys.

    Raises:
        PoolError: names the first that is unknown, the nearest known one, and all.
    """
    names = list(known)
    for key in record:
        if key not in names:
            raise PoolError(
                f"{no_such('key', key, names)} (read as {layout}{hint}). A key that says nothing about entities is "
                f"passed over with ignore = [{quoted(key)}] in pool.toml or [pools], or --ignore of pool import"
            )


def known_span_keys(span: Any, known: Iterable[str], layout: str) -> None:
    """As :func:`known_keys`, of a span; what is no object has no keys.

    Raises:
        PoolError: names the first that is unknown, the nearest known one, and all.
    """
    names = list(known)
    for key in span if isinstance(span, Mapping) else ():
        if key not in names:
            raise PoolError(f"in a span {no_such('key', key, names)} (read as {layout})")


def is_place(value: Any) -> TypeGuard[int]:
    """Whether it can be an offset: a whole number, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_label(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def quoted(value: Any) -> str:
    """A value for a message: null as JSON has it, not too long, and nothing in it that a terminal obeys."""
    if value is None:
        return "null"
    line = ascii(value) if not repr(value).isprintable() else repr(value)
    return line if len(line) <= _SHORT else line[:_SHORT] + "…"


def _instead(record: Mapping[str, Any], key: str) -> str:
    return f", not {quoted(record[key])}" if key in record and not isinstance(record[key], str) else ""
