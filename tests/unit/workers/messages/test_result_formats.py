"""Results in Avro and Protobuf: nothing is lost on the way there and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from tests.support.paths import ROOT
from workers.messages import json_schemas
from workers.messages.result_encoding import result_encoder
from workers.messages.result_reading import result_values
from workers.messages.result_schemas import RESULT_TOPICS, FramedFormat, result_record, result_schema
from workers.registry.record_types import ListType, MapType, RecordType, ValueType
from workers.registry.registered_schema import RegisteredSchema
from workers.topics import Topic

BINARY: tuple[FramedFormat, ...] = ("avro", "protobuf")
EXAMPLES = [
    (topic, path)
    for topic in RESULT_TOPICS
    for path in sorted((ROOT / "schemas" / "examples").glob(f"{topic.value}.v1.*.json"))
    if ".invalid-" not in path.name
]
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(),
    "integer": st.integers(0, 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, 1 / 3, -0.0, 5e-324]),
    "boolean": st.booleans(),
    "json": st.dictionaries(st.text(), ANY_JSON, max_size=3),
}


@cache
def values_of(kind: ValueType) -> st.SearchStrategy[Any]:
    """Whatever a type can have."""
    if isinstance(kind, ListType):
        return st.lists(values_of(kind.items), max_size=3)
    if isinstance(kind, MapType):
        return st.dictionaries(st.text(), values_of(kind.values), max_size=3)
    if isinstance(kind, RecordType):
        required, optional = {}, {}
        for field in kind.fields:
            values = values_of(field.type)
            (required if field.required else optional)[field.name] = st.none() | values if field.nullable else values
        return st.fixed_dictionaries(required, optional=optional)
    return SCALARS[kind.kind]


@cache
def both_ways(topic: Topic, value_format: FramedFormat) -> tuple[Callable[[bytes], bytes], Callable[[bytes], Any]]:
    """Writing and reading."""
    return (
        result_encoder(topic, value_format),
        result_values(topic)(1, result_schema(topic, value_format)).read,
    )


def there_and_back(topic: Topic, value_format: FramedFormat, value: Any) -> Any:
    write, read = both_ways(topic, value_format)
    return read(write(orjson.dumps(value)))


@pytest.mark.parametrize("value_format", BINARY)
@pytest.mark.parametrize(("topic", "path"), EXAMPLES, ids=lambda each: getattr(each, "name", None))
def test_examples_come_back_as_they_were(topic: Topic, path: Any, value_format: FramedFormat) -> None:
    value = orjson.loads(path.read_bytes())
    assert there_and_back(topic, value_format, value) == value


@pytest.mark.parametrize("value_format", BINARY)
@pytest.mark.parametrize("topic", RESULT_TOPICS)
@given(data=st.data())
def test_nothing_is_lost(topic: Topic, value_format: FramedFormat, data: st.DataObject) -> None:
    """Also what is not there, null or empty, characters of every kind, and numbers to the last bit."""
    value = data.draw(values_of(result_record(topic)))
    returned = there_and_back(topic, value_format, value)
    assert returned == value
    assert orjson.dumps(returned, option=orjson.OPT_SORT_KEYS) == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("value_format", BINARY)
def test_whole_numbers_may_be_written_as_others_and_the_other_way(value_format: FramedFormat) -> None:
    mention = orjson.loads((ROOT / "schemas/examples/entity-mentions.v1.mention.json").read_bytes())
    returned = there_and_back(Topic.ENTITY_MENTIONS, value_format, mention | {"start": 5.0, "confidence": 1})
    assert returned == mention | {"start": 5, "confidence": 1.0}
    assert isinstance(returned["start"], int)


@pytest.mark.parametrize("value_format", BINARY)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entity_id": None}, "'entity_id' is null, which is for leaving it out"),
        ({"start": 2**63}, "."),
    ],
)
def test_what_would_be_lost_is_not_written(value_format: FramedFormat, change: Any, said: str) -> None:
    mention = orjson.loads((ROOT / "schemas/examples/entity-mentions.v1.mention.json").read_bytes())
    with pytest.raises((ValueError, OverflowError), match=said):
        there_and_back(Topic.ENTITY_MENTIONS, value_format, mention | change)
    del mention["text"]
    with pytest.raises(ValueError, match="needs 'text'"):
        there_and_back(Topic.ENTITY_MENTIONS, value_format, mention)


@pytest.mark.parametrize("value_format", BINARY)
def test_what_a_stage_of_a_newer_release_says_of_itself_does_not_end_the_join(value_format: FramedFormat) -> None:
    """Manifests are handed on as they came, also while workers are replaced one by one."""
    tagged = orjson.loads((ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes())
    newer = orjson.loads(orjson.dumps(tagged))
    assert newer["manifests"]
    for manifest in newer["manifests"].values():
        manifest["mood"] = {"blue": [1, None]}
    assert there_and_back(Topic.TAGGED_DOCUMENTS, value_format, newer | {"mood": None}) == tagged


@pytest.mark.parametrize("value_format", BINARY)
def test_the_same_value_is_the_same_bytes(value_format: FramedFormat) -> None:
    write, _ = both_ways(Topic.TAGGED_DOCUMENTS, value_format)
    value = (ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes()
    assert write(value) == write(value)


def test_readers_pass_over_what_a_newer_release_has_written_and_miss_nothing_of_an_older_one() -> None:
    topic = Topic.ENTITY_MENTIONS
    schema = orjson.loads(result_schema(topic, "avro").text)
    mention = orjson.loads((ROOT / "schemas/examples/entity-mentions.v1.mention.json").read_bytes())
    mention.pop("entity_id", None)
    newer = schema | {"fields": [*schema["fields"], {"name": "mood", "type": ["null", "string"], "default": None}]}
    older = schema | {"fields": [each for each in schema["fields"] if each["name"] != "entity_id"]}
    for written_by, value in ((newer, mention | {"mood": "blue"}), (older, mention)):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(orjson.loads(orjson.dumps(written_by))), value)
        registered = RegisteredSchema("AVRO", orjson.dumps(written_by).decode())
        assert result_values(topic)(2, registered).read(out.getvalue()) == mention
        # As another reader resolves it, with the schema that it knows.
        out.seek(0)
        assert fastavro.schemaless_reader(out, written_by, schema) == mention | {"entity_id": None}


@pytest.mark.parametrize("value_format", BINARY)
def test_a_value_of_another_schema_is_no_result(value_format: FramedFormat) -> None:
    write, _ = both_ways(Topic.ENTITY_TRENDS, value_format)
    body = write((ROOT / "schemas/examples/entity-trends.v1.window.json").read_bytes())
    values = result_values(Topic.TAGGED_DOCUMENTS)(1, result_schema(Topic.ENTITY_TRENDS, value_format))
    with pytest.raises(MessageError, match="not a"):
        json_schemas.validate(Topic.TAGGED_DOCUMENTS.value, values.read(body))
