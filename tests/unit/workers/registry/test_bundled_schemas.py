"""The schemas that are registered, against those that they are made of."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import orjson
import pytest

from el4ner.errors import MessageError
from tests.support.paths import ROOT
from workers.messages import json_schemas
from workers.messages.result_schemas import result_schema
from workers.topics import Topic

RESULTS = (
    Topic.TAGGED_DOCUMENTS,
    Topic.ENTITY_MENTIONS,
    Topic.REDACTED_DOCUMENTS,
    Topic.ENTITIES,
    Topic.ENTITY_TRENDS,
)
EXAMPLES = [(topic, path) for topic in RESULTS for path in (ROOT / "schemas/examples").glob(f"{topic.value}.v1.*.json")]


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for each in value for found in references(each)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if "$ref" in value else []
    return own + [found for each in value.values() for found in references(each)]


@pytest.mark.parametrize(("topic", "path"), EXAMPLES, ids=lambda value: getattr(value, "stem", str(value)))
def test_a_registered_schema_allows_what_the_topics_schema_does(topic: Topic, path: Any) -> None:
    value = orjson.loads(path.read_bytes())
    try:
        json_schemas.validate(topic.value, value)
        valid = True
    except MessageError:
        valid = False
    registered = jsonschema_rs.Draft7Validator(json.loads(result_schema(topic, "json-schema").text))
    assert registered.is_valid(value) == valid
    assert valid or "invalid" in path.name


@pytest.mark.parametrize("topic", RESULTS)
def test_a_registered_schema_needs_no_other(topic: Topic) -> None:
    assert any(of is topic for of, _ in EXAMPLES)
    schema = json.loads(result_schema(topic, "json-schema").text)
    assert set(references(schema)) == {f"#/definitions/{name}" for name in schema["definitions"]}
