"""El4ner's own JSON Schemas as registries take them: each in one piece, and in draft 7, the newest one that all of them
compare versions of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["bundled"]

_LOCAL: Final = "#/definitions/"
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def bundled(schema: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the definitions of ``common`` that it refers to, directly or through others."""
    outside = f"{common['$id']}#/$defs/"
    own = {name: _rewritten(value, outside) for name, value in schema.items() if name not in ("$id", "$schema")}
    definitions: dict[str, Any] = dict(own.pop("$defs", {}))
    wanted = [*_names(own), *_names(definitions)]
    while wanted:
        name = wanted.pop()
        if name not in definitions:
            definitions[name] = _rewritten(common["$defs"][name], outside)
            wanted += _names(definitions[name])
    return {"$schema": _DRAFT, **own, "definitions": dict(sorted(definitions.items()))}


def _rewritten(value: Any, outside: str) -> Any:
    if isinstance(value, list):
        return [_rewritten(each, outside) for each in value]
    if not isinstance(value, dict):
        return value
    rewritten = {name: _rewritten(inner, outside) for name, inner in value.items() if name != "$ref"}
    reference = value.get("$ref")
    if reference is None:
        return rewritten
    local = {"$ref": _LOCAL + str(reference).removeprefix(outside).removeprefix("#/$defs/")}
    # Draft 7 looks at nothing beside a reference.
    return {**rewritten, "allOf": [local, *rewritten.get("allOf", ())]} if rewritten else local


def _names(value: Any) -> list[str]:
    """Definitions that are referred to."""
    if isinstance(value, list):
        return [name for each in value for name in _names(each)]
    if not isinstance(value, dict):
        return []
    inner = [name for each in value.values() for name in _names(each)]
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_LOCAL):
        inner.append(reference.removeprefix(_LOCAL))
    return inner
