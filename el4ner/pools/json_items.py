"""The labelled sentences of a JSON file, whatever layout it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from el4ner.errors import PoolError
from el4ner.pools.conll import Tokens, sentence_of
from el4ner.pools.joining import join_of
from el4ner.pools.json_records import JsonRecord, json_records
from el4ner.pools.labelled import Labelled, Rejected, quoted
from el4ner.pools.layouts import OURS, PRODIGY, Layout, Parsed, layout_of
from el4ner.pools.pool import PoolSentence
from el4ner.pools.read_options import Item, Join, LeftOut, Reading, Units
from el4ner.pools.units import agreed_units, offsets_in, same_surface, units_of
from el4ner.types import Span

__all__ = ["json_items"]

_PLAIN_KEYS: Final = frozenset({"text", "spans", "id", "meta", "metadata"})

_LABELS: Final = frozenset(
    {"spans", "label", "labels", "entities", "ents", "annotation", "annotations", "result", "ner_tags", "tags", "ner"}
)
"""Keys under which one layout or another has the entities."""


@dataclass(frozen=True, slots=True)
class _FileLayout:
    """The layout of a file, and its first record's place; an empty one where the user said which layout it is."""

    layout: Layout
    where: str = ""

    def names(self, record: Mapping[str, Any]) -> bool:
        """Whether a record without a sign of any layout is read by this one."""
        return not self.where or "spans" not in record


def json_items(path: Path, reading: Reading, layouts: Sequence[Layout] = ()) -> Iterator[Item]:
    """The sentences of a file, in its order; one file has one layout: one of ``layouts``, if there are any.

    Raises:
        PoolError: the file cannot be read.
    """
    layout = _layout_of_file(path, reading, layouts)
    agreed, join = _survey(path, reading, layout)
    for item in _parsed(path, reading, layout):
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


def _layout_of_file(path: Path, reading: Reading, layouts: Sequence[Layout]) -> _FileLayout | None:
    """That of the first record that has one; of ``layouts`` the first, where none of the records is in any."""
    for record in _records(path, reading):
        if isinstance(record, JsonRecord) and not _is_plain(record.value):
            try:
                layout = layout_of(record.value)
            except PoolError:
                continue
            if not layouts or layout in layouts:
                return _FileLayout(layout, "" if layouts else record.where)
    return _FileLayout(layouts[0]) if layouts else None


def _survey(path: Path, reading: Reading, layout: _FileLayout | None) -> tuple[Units | None, Join]:
    """What only the whole file tells: the unit of its offsets, and how its tokens are joined."""
    if layout is None or not (layout.layout.units_differ or layout.layout.has_tokens):
        return None, reading.join
    if layout.layout.has_tokens:
        parts = (part for _, part in _pairs(_parsed(path, reading, layout)) if isinstance(part, Tokens | list))
        return None, join_of((sentence.tokens for part in parts for sentence in _listed(part)), reading.join)
    labelled = (part for _, part in _pairs(_parsed(path, reading, layout)) if isinstance(part, Labelled))
    return agreed_units([units_of(part.text, part.spans) for part in labelled]), reading.join


def _parsed(path: Path, reading: Reading, layout: _FileLayout | None) -> Iterator[LeftOut | tuple[str, Parsed]]:
    for record in _records(path, reading):
        yield record if isinstance(record, LeftOut) else _parse(record, layout)


def _records(path: Path, reading: Reading) -> Iterator[JsonRecord | LeftOut]:
    return (_without(record, reading.ignore) for record in json_records(path))


def _parse(record: JsonRecord, file_layout: _FileLayout | None) -> LeftOut | tuple[str, Parsed]:
    """What a record says."""
    try:
        layout = layout_of(record.value)
        if file_layout is not None:
            expected = file_layout.layout
            plain = _is_plain(record.value)
            if layout is OURS and not plain and expected.strict and file_layout.names(record.value):
                layout = expected  # a key that is nobody's: the file's layout names the nearest one better
            if layout is not expected and not plain:
                return LeftOut(record.where, _another_layout(record.value, layout, file_layout))
            if layout is not expected and (expected is not PRODIGY or "spans" not in record.value):
                return LeftOut(record.where, f"has no labels, not even an empty list of them as in {expected.name}")
        return record.where, layout.parse(record.value)
    except PoolError as error:
        return LeftOut(record.where, str(error))


def _another_layout(value: Any, layout: Layout, file_layout: _FileLayout) -> str:
    keys = [key for key in value if key not in _PLAIN_KEYS] if isinstance(value, dict) else []
    named = f" (key {quoted(keys[0])})" if keys else ""
    expected = file_layout.layout.name
    if file_layout.where:
        return (
            f"is in {layout.name}{named}, but {file_layout.where} is in {expected}: a file has one layout, so move one "
            "of them"
        )
    return f"is not in {expected}{named}" + ("" if layout is OURS else f", but in {layout.name}")


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


def _pairs(parsed: Iterable[LeftOut | tuple[str, Parsed]]) -> Iterator[tuple[str, Parsed]]:
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
            'browsers do, cannot be told: set offsets = "code-points" or "utf-16" in pool.toml or [pools], or use '
            "--offsets of pool import"
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
                f"span {raw.start}–{raw.end} is {quoted(actual)}, not {quoted(raw.surface)}; "
                "offsets are Unicode code points, end not included"
            )
        spans.append((Span(start, end, actual), raw.label))
    return PoolSentence(part.text, tuple(sorted(set(spans))), where)
