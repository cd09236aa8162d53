"""The chart's ``config`` in its JSON Schema, from the settings' own definitions: ``helm install`` then refuses a
setting that is misspelt, or of a wrong kind, before any pod is made that would refuse it.

The rest of ``values.schema.json`` is written by hand and left as it is. A test holds that it is what the code gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from workers.config import StreamSettings

__all__ = ["SCHEMA_FILE", "chart_schema", "config_definitions"]

SCHEMA_FILE: Final = Path(__file__).parents[1] / "docker" / "helm" / "el4ner" / "values.schema.json"
_PREFIX: Final = "config"
_SAYS_NOTHING: Final = frozenset({"default", "description", "format", "required", "title", "writeOnly"})
"""Of pydantic's schema. Nothing is required: presets and variables say things too."""


def config_definitions() -> dict[str, Any]:
    """Definitions for ``$defs``: ``config``, the whole file, and ``config.SECTION`` for what it is made of."""
    schema = StreamSettings.model_json_schema(ref_template=f"#/$defs/{_PREFIX}.{{model}}")
    parts = {name: _bare(part) for name, part in schema.pop("$defs").items()}
    rule = parts["RedactionRule"]
    # "mask" is short for { action = "mask" }.
    parts["RedactionRule"] = {"anyOf": [rule["properties"]["action"], rule]}
    return {_PREFIX: _bare(schema)} | {f"{_PREFIX}.{name}": part for name, part in sorted(parts.items())}


def chart_schema(written: str) -> str:
    """The file's text, with these definitions in the place of those that it had."""
    schema = json.loads(written)
    by_hand = {
        name: part for name, part in schema["$defs"].items() if name != _PREFIX and not name.startswith(f"{_PREFIX}.")
    }
    schema["$defs"] = by_hand | config_definitions()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _bare(node: Any, *, names: bool = False) -> Any:
    """Without what only people read. ``names``: the keys are settings' names, which may be any."""
    if isinstance(node, dict):
        return {
            key: _bare(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key not in _SAYS_NOTHING
        }
    return [_bare(item) for item in node] if isinstance(node, list) else node
