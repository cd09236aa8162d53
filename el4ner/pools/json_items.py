"""The labelled sentences of a JSON file, whatever layout it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from el4ner.errors import PoolError
from el4ner.pools.conll import Tokens, sentence_of
from el4ner.pools.joining import join_of
from el4ner.pools.json_records import JsonRecord, json_records
from el4ner.pools.labelled import Labelled, Rejected, quoted
from el4ner.pools.layouts import OURS, PRODIGY, Layout, Parsed, layout_of
from el4ner.pools.pool import PoolSentence
from el4ner.pools.read_options import Item, LeftOut, Reading, Units
from el4ner.pools.units import agreed_units, offsets_in, same_surface, units_of
from el4ner.types import Span

__all__ = ["json_items"]

_PLAIN_KEYS: Final = frozenset({"text", "spans", "id", "meta", "metadata"})

_LABELS: Final = frozenset(
    {"spans", "label", "labels", "entities", "ents", "annotation", "annotations", "result", "ner_tags", "tags", "ner"}
)
"""Keys under which one layout or another has the entities."""


def json_items(path: Path, reading: Reading) -> Iterator[Item]:
    """The sentences of a file, in its order; one file has one layout.

    Raises:
        PoolError: the file cannot be read.
    """
    layout: tuple[Layout, str] | None = None
    records = [_without(record, reading.ignore) for record in json_records(path)]
    for record in records:
        if isinstance(record, JsonRecord) and not _is_plain(record.value):
            try:
                layout = layout or (layout_of(record.value), record.where)
            except PoolError:
                continue
    parsed = [record if isinstance(record, LeftOut) else _parse(record, layout) for record in records]
    labelled = [part for _, part in _pairs(parsed) if isinstance(part, Labelled)]
    agreed = agreed_units([units_of(part.text, part.spans) for part in labelled if part.units == "auto"])
    tokens = [sentence for _, part in _pairs(parsed) if isinstance(part, Tokens | list) for sentence in _listed(part)]
    join = join_of([sentence.tokens for sentence in tokens], reading.join)
    for item in parsed:
        if isinstance(item, LeftOut):
            yield item
            continue
        where, part = item
        if isinstance(part, Rejected):
            yield LeftOut(where, part.reason, mistake=False)
        elif isinstance(part, Labelled):
            try:
                yield _sentence(part, where, _units(part, reading.offsets, agreed))
            except PoolError as error:
                yield LeftOut(where, str(error))
        else:
            for sentence in _listed(part):
                sentence.where = where
                yield sentence_of(sentence, join)


def _parse(record: JsonRecord, file_layout: tuple[Layout, str] | None) -> LeftOut | tuple[str, Parsed]:
    """What a record says. ``file_layout`` is the layout of the file's first record that has one, and its place."""
    try:
        layout = layout_of(record.value)
        if file_layout is not None:
            expected, where = file_layout
            plain = _is_plain(record.value)
            if layout is OURS and not plain and expected.strict and "spans" not in record.value:
                layout = expected  # a key that is nobody's: the file's layout names the nearest one better
            if layout is not expected and not plain:
                return LeftOut(record.where, _another_layout(record.value, layout, expected, where))
            if layout is not expected and (expected is not PRODIGY or "spans" not in record.value):
                return LeftOut(record.where, f"has no labels, not even an empty list of them as in {expected.name}")
        return record.where, layout.parse(record.value)
    except PoolError as error:
        return LeftOut(record.where, str(error))


def _another_layout(value: Any, layout: Layout, first: Layout, where: str) -> str:
    keys = [key for key in value if key not in _PLAIN_KEYS] if isinstance(value, dict) else []
    named = f" (key {quoted(keys[0])})" if keys else ""
    return f"is in {layout.name}{named}, but {where} is in {first.name}: a file has one layout, so move one of them"


def _is_plain(value: Any) -> bool:
    """A text without entities, as several layouts have it."""
    return isinstance(value, dict) and not value.get("spans") and value.keys() <= _PLAIN_KEYS


def _without(record: JsonRecord | LeftOut, keys: frozenset[str]) -> JsonRecord | LeftOut:
    if isinstance(record, LeftOut) or not keys or not isinstance(record.value, dict):
        return record
    rest = {key: value for key, value in record.value.items() if key not in keys}
    taken = sorted(record.value.keys() & keys & _LABELS)
    if taken and not rest.keys() & _LABELS:
        return LeftOut(
            record.where, f"ignore takes away {quoted(taken[0])}, and nothing else says which entities it has"
        )
    return JsonRecord(record.where, rest)


def _pairs(parsed: list[LeftOut | tuple[str, Parsed]]) -> Iterator[tuple[str, Parsed]]:
    return (item for item in parsed if not isinstance(item, LeftOut))


def _listed(part: Tokens | list[Tokens]) -> list[Tokens]:
    return part if isinstance(part, list) else [part]


def _units(part: Labelled, asked: Units, agreed: Units | None) -> Units:
    """The unit that this record is counted in.

    Raises:
        PoolError: it cannot be told.
    """
    if part.units != "auto":
        return part.units
    if asked != "auto":
        return asked
    units = units_of(part.text, part.spans) or agreed
    if units is None:
        raise PoolError(
            "has an emoji or the like in front of a span, and whether its offsets count code points or UTF-16, as "
            'browsers do, cannot be told: set offsets = "code-points" or "utf-16" in pool.toml or [pools]'
        )
    return "code-points" if units == "auto" else units


def _sentence(part: Labelled, where: str, units: Units) -> PoolSentence:
    spans = []
    for raw in part.spans:
        start, end = offsets_in(part.text, raw, units)
        actual = part.text[start:end]
        same = raw.surface is None or raw.surface == actual
        if not same and not (part.units == "auto" and same_surface(actual, raw.surface or "")):
            raise PoolError(
                f"span {raw.start}–{raw.end} is {actual!r}, not {raw.surface!r}; "
                "offsets are Unicode code points, end not included"
            )
        spans.append((Span(start, end, actual), raw.label))
    return PoolSentence(part.text, tuple(sorted(set(spans))), where)
