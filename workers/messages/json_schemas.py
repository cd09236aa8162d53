"""The JSON Schemas of the topics, and validation on the way in.

They lie in the repository's ``schemas/`` and, in a wheel, in ``workers/_schemas``: the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import orjson

from el4ner.errors import MessageError

__all__ = ["COMMON", "SCHEMA_NAMES", "load", "mistakes_in", "schema_id", "schemas_dir", "validate"]

COMMON: Final = "common"
SCHEMA_NAMES: Final = (
    "dead-letters",
    "documents",
    "entities",
    "entity-decisions",
    "entity-mentions",
    "entity-occurrences",
    "entity-trends",
    "joins",
    "member-answers",
    "pool-examples",
    "redacted-documents",
    "redacted-originals",
    "span-candidates",
    "tagged-documents",
    "typed-entities",
    "validation-verdicts",
)
"""One per topic; ``dead-letters`` describes headers, ``joins`` the aggregator's changelog."""

_MAX_PROBLEMS: Final = 3


def schemas_dir() -> Path:
    """Where the schema files are."""
    package = Path(__file__).parents[1]
    packaged = package / "_schemas"
    return packaged if packaged.is_dir() else package.parent / "schemas"


@cache
def load(name: str) -> Mapping[str, Any]:
    """The schema of that name."""
    loaded: Mapping[str, Any] = orjson.loads((schemas_dir() / f"{name}.v1.json").read_bytes())
    return loaded


@cache
def schema_id(name: str) -> str:
    """What ``ce_dataschema`` says."""
    return str(load(name)["$id"])


def validate(name: str, data: Any) -> None:
    """Check JSON data against the schema.

    Raises:
        MessageError: names the JSON path of what is wrong (a JSON Pointer; ``/`` is the whole) and what is expected.
    """
    try:
        problems = mistakes_in(_validator(name), data)
    except ValueError as error:  # bytes, which Avro and Protobuf have, or nested too deep to be looked at
        raise MessageError(f"not a {name} message: it cannot be looked at ({error})", code="schema") from error
    if problems is not None:
        raise MessageError(f"not a {name} message: {problems}", code="schema")


def mistakes_in(validator: Any, data: Any) -> str | None:
    """What is wrong with JSON data by a validator of :mod:`jsonschema_rs`: the first places (JSON Pointers; ``/`` is
    the whole) and what is expected there; None: nothing is."""
    if validator.is_valid(data):
        return None
    problems = []
    for error in validator.iter_errors(data):
        pointer = "/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
        problems.append(f"{pointer}: {_short(error.message)}")
        if len(problems) == _MAX_PROBLEMS:
            problems.append("…")
            break
    return "; ".join(problems)


@cache
def _validator(name: str) -> Any:
    common = load(COMMON)
    registry = jsonschema_rs.Registry([(common["$id"], dict(common))], draft=jsonschema_rs.Draft202012)
    # A mask keeps the value out of the message: it is somebody's document, and may be megabytes.
    return jsonschema_rs.Draft202012Validator(dict(load(name)), registry=registry, mask="the value", offline=True)


def _short(message: str) -> str:
    return message if len(message) <= 200 else message[:199] + "…"
