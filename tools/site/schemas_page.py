"""The reference of messages, from their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tools.site.markdown import table
from workers.messages.json_schemas import COMMON, SCHEMA_NAMES, load, schemas_dir

__all__ = ["schemas_page"]

_HEAD: Final = """# All messages

What each topic's messages have in them, with an example: made from the JSON Schemas of this release, which are the
contract. [Schemas](../schemas.md) says what is promised about them.

"""


def schemas_page() -> str:
    """The page."""
    return _HEAD + "\n".join(_schema(name) for name in SCHEMA_NAMES)


def _schema(name: str) -> str:
    schema = load(name)
    required = set(schema.get("required", ()))
    rows = [
        (f"`{key}`", _kind(value), "yes" if key in required else "", _resolved(value).get("description", ""))
        for key, value in schema.get("properties", {}).items()
    ]
    parts = [
        f"## {name}",
        f"{schema.get('title', '')}. {schema.get('description', '')}".strip(". ") + ".",
        table(("property", "type", "required", "meaning"), rows),
    ]
    examples = sorted(
        path for path in (schemas_dir() / "examples").glob(f"{name}.v1.*.json") if ".invalid-" not in path.name
    )
    for example in examples[:1]:
        shown = json.dumps(json.loads(example.read_text(encoding="utf-8")), ensure_ascii=False, indent=2)
        parts.append(f"```json\n{shown}\n```\n")
    return "\n\n".join(part for part in parts if part)


def _resolved(value: Any) -> Mapping[str, Any]:
    """A property with what it refers to; its own words win."""
    if not isinstance(value, Mapping):
        return {}
    reference = str(value.get("$ref", ""))
    _, _, name = reference.rpartition("/$defs/")
    shared = load(COMMON)["$defs"].get(name, {}) if reference.startswith(load(COMMON)["$id"]) else {}
    return {**shared, **value}


def _kind(value: Any) -> str:
    resolved = _resolved(value)
    if "const" in resolved:
        return f"`{json.dumps(resolved['const'])}`"
    if "enum" in resolved:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in resolved["enum"])
    for several in ("anyOf", "oneOf"):
        if several in resolved:
            return " or ".join(dict.fromkeys(kind for part in resolved[several] if (kind := _kind(part))))
    kind = resolved.get("type", "")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array" and "items" in resolved:
        return f"array of {_kind(resolved['items']) or 'values'}"
    return str(kind)
