"""Whether the schemas of ``schemas/`` keep what the last release promised.

Two promises are checked, by who is at the other end of a topic:

- **Whatever was valid is valid.** Messages of older producers, and those that lie in the topics, can still be read:
  nothing is narrowed. This holds for every schema.
- **Whatever is written now was valid.** Older readers understand newer messages: nothing is widened, except that
  optional properties come (every reader has to pass over what it does not know). This holds for what el4ner writes.
  ``documents`` is written by others and read by el4ner alone: it may be widened.

A property that is declared stays declared. A list of values that may grow is marked ``"x-open": true`` beside its
``enum`` in a release *before* it grows, so that readers were told.

The check is about the structure, not the wording (titles, descriptions), follows references, and looks at ``allOf`` as
one. Where it cannot tell, as with a changed ``pattern``, a change is an incompatibility: a new form of a message is a
new version of its schema, beside the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from tools.schema_nodes import (
    CHOICES,
    LOWER,
    OPAQUE,
    SUBSCHEMAS,
    UPPER,
    Merged,
    Nodes,
    SchemaError,
    SchemaNode,
    SchemaSet,
)

__all__ = [
    "INTERNAL",
    "Direction",
    "Incompatibility",
    "SchemaError",
    "SchemaSet",
    "announced_breaks",
    "compare_sets",
    "direction_of",
    "latest_release",
    "load_set",
]

INTERNAL: Final[Mapping[str, str]] = {
    "aggregate-ticks": "the aggregator's notes to itself about the time; no other program reads or writes them",
    "joins": "the aggregator's changelog: no other program reads it, and its own field v says which form a record has",
}
"""Schemas that are no part of the contract, by name without the version, and why."""

_WRITTEN_BY_OTHERS: Final = frozenset({"documents"})
_FILE: Final = re.compile(r"(?P<name>[a-z][a-z-]*\.v[0-9]+)\.json")
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


class Direction(StrEnum):
    """Which way the messages of a schema go."""

    READ = "read"
    """Others write, el4ner reads."""
    WRITTEN = "written"
    """El4ner writes; older workers and other programs read."""


@dataclass(frozen=True, slots=True, order=True)
class Incompatibility:
    """Something that breaks a promise. ``pointer`` is a JSON Pointer into the schema's file."""

    schema: str
    pointer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.schema}.json#{self.pointer}: {self.reason}"


def direction_of(name: str) -> Direction:
    """The direction of a schema (``documents.v1``)."""
    return Direction.READ if name.partition(".")[0] in _WRITTEN_BY_OTHERS else Direction.WRITTEN


def load_set(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The schemas that lie in a folder.

    Raises:
        SchemaError: there is none, or one is no JSON object.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        try:
            schema = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise SchemaError(f"{path}: cannot be read: {error}") from error
        if not isinstance(schema, dict):
            raise SchemaError(f"{path}: is no JSON object")
        schemas[match["name"]] = schema
    if not schemas:
        raise SchemaError(f"{folder}: has no schemas (NAME.vN.json)")
    return schemas


def latest_release(released: Path) -> Path:
    """The folder of the highest version in ``schemas/released``.

    Raises:
        SchemaError: nothing was released.
    """
    versions = [path for path in released.iterdir() if _VERSION.fullmatch(path.name)] if released.is_dir() else []
    if not versions:
        raise SchemaError(f"{released}: has no release to compare with (a folder named as its version)")
    return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def announced_breaks(released: Path, version: str) -> Mapping[str, str]:
    """What is known to break the promises of a release, each with the reason: ``announced.json`` beside the releases.

    Until 1.0 a release may break something, if the changelog says so.

    Raises:
        SchemaError: the file cannot be read.
    """
    file = released / "announced.json"
    try:
        announced: Mapping[str, Mapping[str, str]] = orjson.loads(file.read_bytes()) if file.exists() else {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise SchemaError(f"{file}: cannot be read: {error}") from error
    return announced.get(version, {})


def compare_sets(
    old: SchemaSet,
    new: SchemaSet,
    *,
    internal: Iterable[str] = INTERNAL,
    direction: Callable[[str], Direction] = direction_of,
) -> list[Incompatibility]:
    """What ``new`` breaks of the promises of ``old``; nothing: it is compatible.

    Raises:
        SchemaError: a reference leads nowhere.
    """
    left_out = frozenset(internal)
    comparison = _SchemaComparison()
    for name, schema in old.items():
        if name.partition(".")[0] in left_out:
            continue
        if name not in new:
            comparison.report(SchemaNode(old, name, "", schema), "the schema was removed")
            continue
        before, after = SchemaNode(old, name, "", schema), SchemaNode(new, name, "", new[name])
        for keyword in ("$schema", "$id"):
            if schema.get(keyword) != new[name].get(keyword):
                comparison.report(after.at(keyword), f"changed: it was {schema.get(keyword)!r}")
        for definition in schema.get("$defs", {}):
            inside = before.at("$defs", definition)
            if definition not in new[name].get("$defs", {}):
                comparison.report(inside, "the definition was removed")
            else:
                # Whether one may be widened depends on who uses it, and that is seen where it is used.
                comparison.compare((inside,), (after.at("$defs", definition),), Direction.READ)
        comparison.compare((before,), (after,), direction(name))
    return sorted(set(comparison.found))


class _Remark(Protocol):
    """``(what, keyword)``: reports it."""

    def __call__(self, what: str, keyword: str = "", /) -> None: ...


class _SchemaComparison:
    """Walks two sets side by side and keeps what it finds."""

    def __init__(self) -> None:
        self.found: list[Incompatibility] = []
        self._seen: set[tuple[Nodes, Nodes, Direction]] = set()

    def report(self, where: SchemaNode, reason: str) -> None:
        self.found.append(Incompatibility(where.name, where.pointer, reason))

    def compare(self, before: Nodes, after: Nodes, direction: Direction) -> None:
        """Report what of ``before`` is not kept by ``after``. Schemas may be recursive."""
        if (before, after, direction) in self._seen or not (before or after):
            return
        self._seen.add((before, after, direction))
        old, new = Merged(before), Merged(after)
        # Words about a place that is gone are about where it was.
        place = (after or before)[0]

        def narrowed(what: str, keyword: str = "") -> None:
            self.report(new.where(keyword) or place, what)

        def widened(what: str, keyword: str = "") -> None:
            if direction is Direction.WRITTEN:
                self.report(new.where(keyword) or place, f"{what}, which older readers do not know")

        if old.never or new.never:
            if new.never and not old.never:
                narrowed("closed: nothing is allowed any more")
            elif old.never and not new.never:
                widened("opened: something is allowed that was not")
            return
        self._values(old, new, narrowed, widened)
        self._limits(old, new, narrowed, widened)
        self._objects(old, new, direction, narrowed, widened)
        for keyword in SUBSCHEMAS:
            self.compare(old.child(keyword), new.child(keyword), direction)
        for keyword in CHOICES:
            self._choices(old.having(keyword), new.having(keyword), keyword, direction, narrowed, widened)
        self._conditions(old.having("if"), new.having("if"), direction, narrowed, widened)
        was, now = old.unknown(), new.unknown()
        for keyword in sorted(was.keys() | now.keys()):
            if was.get(keyword) != now.get(keyword):
                narrowed(f"{keyword} changed, and what that means is not known here", keyword)

    def _values(self, old: Merged, new: Merged, narrowed: _Remark, widened: _Remark) -> None:
        if old.open and not new.open:
            narrowed("x-open was removed: the list of values is promised to be open", "enum")
        gone, come = old.types - new.types, new.types - old.types
        if old.values is None and new.values is not None:
            narrowed(f"only {_listed(new.values)} are allowed now", "enum")
        elif old.values is not None and new.values is None:
            if not old.open:
                widened("any value is allowed now", "type")
        elif old.values is not None and new.values is not None:
            removed = {key: value for key, value in old.values.items() if key not in new.values}
            added = {key: value for key, value in new.values.items() if key not in old.values}
            if removed:
                narrowed(f"{_listed(removed)} is not allowed any more", "enum")
            if added and not old.open:
                widened(f"{_listed(added)} is allowed now", "enum")
            return
        # An integer is a number: what is said of one of them need not be said of both.
        if gone:
            narrowed(f"type {_named(gone)} is not allowed any more", "type")
        if come and not (old.values is not None):
            widened(f"type {_named(come)} is allowed now", "type")

    def _limits(self, old: Merged, new: Merged, narrowed: _Remark, widened: _Remark) -> None:
        for keywords, tightest, sign in ((LOWER, max, 1), (UPPER, min, -1)):
            for keyword in keywords:
                was = tightest((part.schema[keyword] for part in old.having(keyword)), default=_none(keyword))
                now = tightest((part.schema[keyword] for part in new.having(keyword)), default=_none(keyword))
                if was == now:
                    continue
                tighter = was is None or (now is not None and sign * now > sign * was)
                remark = narrowed if tighter else widened
                shown = ["not set" if limit is None else limit for limit in (now, was)]
                remark(f"{keyword} is {shown[0]}, it was {shown[1]}", keyword)
        for keyword in OPAQUE:
            before = [part.schema[keyword] for part in old.having(keyword) if part.schema[keyword] is not False]
            after = [part.schema[keyword] for part in new.having(keyword) if part.schema[keyword] is not False]
            added = [value for value in after if value not in before]
            removed = [value for value in before if value not in after]
            if added:
                narrowed(f"{keyword} {added[0]!r} is asked for now", keyword)
            elif removed:
                widened(f"{keyword} {removed[0]!r} is not asked for any more", keyword)

    def _objects(self, old: Merged, new: Merged, direction: Direction, narrowed: _Remark, widened: _Remark) -> None:
        for name in sorted(new.required.keys() - old.required.keys()):
            self.report(new.required[name].at("required"), f"{name!r} is required now")
        for name in sorted(old.required.keys() - new.required.keys()):
            widened(f"{name!r} is no longer required: it may be missing", "required")
        was, now = old.properties(), new.properties()
        for name, nodes in was.items():
            if name not in now:
                self.report(nodes[0], f"the property {name!r} was removed")
            else:
                self.compare(nodes, now[name], direction)
        for name in now.keys() - was.keys():
            # Allowed, as far as the schema was open to properties that it did not name.
            rest = old.child("additionalProperties") or old.child("unevaluatedProperties")
            if rest:
                self.compare(rest, now[name], direction)

    def _choices(
        self,
        old: list[SchemaNode],
        new: list[SchemaNode],
        keyword: str,
        direction: Direction,
        narrowed: _Remark,
        widened: _Remark,
    ) -> None:
        for before, after in zip(old, new, strict=False):
            was = [before.at(keyword, index) for index, _ in enumerate(before.schema[keyword])]
            now = [after.at(keyword, index) for index, _ in enumerate(after.schema[keyword])]
            # The same ones may have changed places; what is left is compared in order.
            for left in list(was):
                same = next((right for right in now if right.canonical() == left.canonical()), None)
                if same is not None:
                    was.remove(left)
                    now.remove(same)
            for left, right in zip(was, now, strict=False):
                self.compare((left,), (right,), direction)
            if len(was) > len(now):
                narrowed(f"{keyword} has a choice less", keyword)
            elif len(now) > len(was):
                widened(f"{keyword} has a choice more", keyword)
        if len(new) > len(old):
            narrowed(f"{keyword} is asked for now", keyword)
        elif len(old) > len(new):
            widened(f"{keyword} is not asked for any more", keyword)

    def _conditions(
        self, old: list[SchemaNode], new: list[SchemaNode], direction: Direction, narrowed: _Remark, widened: _Remark
    ) -> None:
        for before, after in zip(old, new, strict=False):
            if before.at("if").canonical() != after.at("if").canonical():
                narrowed("the condition changed", "if")
            for branch in ("then", "else"):
                nodes = [(node.at(branch),) if branch in node.schema else () for node in (before, after)]
                self.compare(nodes[0], nodes[1], direction)
        if len(new) > len(old):
            narrowed("a condition is asked for now", "if")
        elif len(old) > len(new):
            widened("a condition is not asked for any more", "if")


def _none(keyword: str) -> int | None:
    """What a limit is that is not set."""
    return 0 if keyword in {"minLength", "minItems", "minProperties"} else None


def _named(types: Iterable[str]) -> str:
    named = set(types)
    if "number" in named:
        named.discard("integer")
    return ", ".join(sorted(named))


def _listed(values: Mapping[bytes, Any]) -> str:
    shown = [key.decode() for key in sorted(values)]
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
