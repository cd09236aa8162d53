"""Schemas and code hold together: the schemas are valid, the golden examples are read, what is invalid is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from el4ner.errors import MessageError
from el4ner.serialize import candidates_from_json, entities_from_json, tagged_from_json, types_from_json
from workers.messages import json_schemas
from workers.topics import TABLE_NAME, Topic

EXAMPLES = sorted((json_schemas.schemas_dir() / "examples").glob("*.json"))
VALID = [path for path in EXAMPLES if ".invalid-" not in path.name]
INVALID = [path for path in EXAMPLES if ".invalid-" in path.name]


def load(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def name_of(path: Path) -> str:
    return path.name.split(".v1.")[0]


def test_there_is_one_schema_for_every_topic() -> None:
    assert set(json_schemas.SCHEMA_NAMES) == {topic.value for topic in Topic} | {TABLE_NAME}
    files = {path.name.removesuffix(".v1.json") for path in json_schemas.schemas_dir().glob("*.v1.json")}
    assert files == {*json_schemas.SCHEMA_NAMES, json_schemas.COMMON}


@pytest.mark.parametrize("name", [*json_schemas.SCHEMA_NAMES, json_schemas.COMMON])
def test_every_schema_is_valid_2020_12(name: str) -> None:
    schema = json_schemas.load(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:el4ner:schemas:{name}:v1"
    jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize("name", [*json_schemas.SCHEMA_NAMES, json_schemas.COMMON])
def test_unknown_fields_are_tolerated_so_that_producers_may_be_newer(name: str) -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            assert node.get("additionalProperties") is not False
            assert "unevaluatedProperties" not in node
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(dict(json_schemas.load(name)))


@pytest.mark.parametrize("name", json_schemas.SCHEMA_NAMES)
def test_every_schema_has_a_valid_and_an_invalid_example(name: str) -> None:
    assert name in {name_of(path) for path in VALID}
    assert name in {name_of(path) for path in INVALID}


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_golden_examples_are_valid(path: Path) -> None:
    json_schemas.validate(name_of(path), load(path))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid_examples_are_refused_with_a_path(path: Path) -> None:
    with pytest.raises(MessageError, match="/") as raised:
        json_schemas.validate(name_of(path), load(path))
    assert raised.value.code == "schema"


@pytest.mark.parametrize(
    ("example", "read"),
    [
        ("span-candidates.v1.ok", candidates_from_json),
        ("typed-entities.v1.ok", types_from_json),
        ("validation-verdicts.v1.ok", entities_from_json),
        ("tagged-documents.v1.complete", tagged_from_json),
        ("tagged-documents.v1.partial", tagged_from_json),
    ],
)
def test_golden_examples_become_values(example: str, read: Any) -> None:
    read(load(json_schemas.schemas_dir() / "examples" / f"{example}.json"))


def test_a_problem_does_not_repeat_the_value_that_has_it() -> None:
    with pytest.raises(MessageError) as raised:
        json_schemas.validate("documents", {"text": ["secret" * 1000]})
    assert "secret" not in str(raised.value)
    assert len(str(raised.value)) < 1_000
