"""Changes of schemas: what was promised is kept, and what breaks a promise is found and named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tools.__main__ import app
from tools.schema_compat import (
    INTERNAL,
    Direction,
    SchemaError,
    announced_breaks,
    compare_sets,
    direction_of,
    latest_release,
    load_set,
)
from workers.messages.json_schemas import schemas_dir

pytestmark = pytest.mark.usefixtures("undisturbed")

RELEASED = schemas_dir() / "released"


def reasons(old: Any, new: Any, direction: Direction = Direction.WRITTEN) -> list[str]:
    found = compare_sets({"t.v1": old}, {"t.v1": new}, direction=lambda _: direction)
    return [f"{one.pointer} {one.reason}" for one in found]


# --- the schemas of this repository ---


@pytest.mark.parametrize("release", sorted(filter(Path.is_dir, RELEASED.iterdir())), ids=lambda path: path.name)
def test_the_schemas_keep_what_every_release_promised_but_for_what_was_announced(release: Path) -> None:
    broken = [str(one) for one in compare_sets(load_set(release), load_set(schemas_dir()))]
    assert broken == sorted(announced_breaks(RELEASED, release.name))


def test_documents_are_read_and_everything_else_is_written() -> None:
    assert direction_of("documents.v1") is Direction.READ
    assert {direction_of(name) for name in load_set(schemas_dir()) if name != "documents.v1"} == {Direction.WRITTEN}


def test_internal_schemas_have_a_reason_and_may_go() -> None:
    assert all(len(reason) > 20 for reason in INTERNAL.values())
    old = load_set(latest_release(RELEASED))
    assert compare_sets(old, {name: schema for name, schema in old.items() if name.split(".")[0] not in INTERNAL}) == []


def test_a_change_inside_a_shared_definition_is_found_where_it_is() -> None:
    old = load_set(latest_release(RELEASED))
    new = copy.deepcopy(old)
    new["common.v1"]["$defs"]["stage"]["enum"].append("aggregate")
    new["common.v1"]["$defs"]["entity"]["allOf"][1]["required"].remove("verdict")
    new["common.v1"]["$defs"]["usage"]["properties"].pop("cached_tokens")
    found = {str(one) for one in compare_sets(old, new)}
    assert any(one.startswith('common.v1.json#/$defs/stage: "aggregate" is allowed now') for one in found)
    assert any("'verdict' is no longer required" in one for one in found)
    removed = "the property 'cached_tokens' was removed"
    assert f"common.v1.json#/$defs/usage/properties/cached_tokens: {removed}" in found


def test_a_limit_of_what_is_only_read_may_be_raised() -> None:
    old = load_set(latest_release(RELEASED))
    new = copy.deepcopy(old)
    new["documents.v1"]["properties"]["text"] = {"type": ["string", "null"]}
    assert compare_sets(old, new) == []
    new["documents.v1"]["properties"]["text"] = {"type": "string", "maxLength": 9}
    assert [str(one) for one in compare_sets(old, new)] == [
        "documents.v1.json#/properties/text: maxLength is 9, it was not set"
    ]


# --- rules, one by one ---

BREAKING_FOR_ALL: dict[str, tuple[Any, Any, str]] = {
    "type narrowed": ({"type": ["string", "null"]}, {"type": "string"}, "type null is not allowed"),
    "number to integer": ({"type": "number"}, {"type": "integer"}, "type number is not allowed"),
    "type set": ({}, {"type": "string"}, "not allowed any more"),
    "enum narrowed": ({"enum": ["a", "b"]}, {"enum": ["a"]}, '"b" is not allowed any more'),
    "enum set": ({"type": "string"}, {"type": "string", "enum": ["a"]}, 'only "a" are allowed'),
    "const": ({"const": 1}, {"const": 2}, "1 is not allowed any more"),
    "pattern set": ({"type": "string"}, {"type": "string", "pattern": "^a"}, "pattern '^a' is asked for now"),
    "pattern changed": ({"pattern": "a"}, {"pattern": "a+"}, "pattern 'a+' is asked for now"),
    "longer at least": ({"minLength": 1}, {"minLength": 2}, "minLength is 2, it was 1"),
    "shorter at most": ({"maxLength": 2}, {"maxLength": 1}, "maxLength is 1, it was 2"),
    "minimum set": ({"type": "integer"}, {"type": "integer", "minimum": 0}, "minimum is 0, it was not set"),
    "items narrowed": ({"items": {"type": "number"}}, {"items": {"type": "integer"}}, "/items type number"),
    "closed": ({"type": "object"}, {"type": "object", "additionalProperties": False}, "closed"),
    "values narrowed": ({}, {"additionalProperties": {"type": "string"}}, "/additionalProperties type"),
    "required": ({"properties": {"a": {}}}, {"properties": {"a": {}}, "required": ["a"]}, "'a' is required now"),
    "new and required": ({}, {"properties": {"a": {}}, "required": ["a"]}, "'a' is required now"),
    "removed": ({"properties": {"a": {}}}, {}, "/properties/a the property 'a' was removed"),
    "a choice less": ({"anyOf": [{"type": "null"}, {"const": 1}]}, {"anyOf": [{"const": 1}]}, "a choice less"),
    "a condition": ({}, {"if": {"type": "string"}, "then": {"minLength": 1}}, "a condition is asked for now"),
    "another condition": ({"if": {"const": 1}}, {"if": {"const": 2}}, "the condition changed"),
    "what follows": ({"if": {}, "then": {}}, {"if": {}, "then": {"required": ["a"]}}, "'a' is required now"),
    "allOf": ({}, {"allOf": [{"type": "string"}]}, "not allowed any more"),
    "not understood": ({"not": {"const": 1}}, {"not": {"const": 2}}, "not changed, and what that means"),
    "another $id": ({"$id": "urn:a"}, {"$id": "urn:b"}, "/$id changed: it was 'urn:a'"),
    "definition removed": ({"$defs": {"a": {}}}, {}, "/$defs/a the definition was removed"),
    "no longer open": ({"enum": [1], "x-open": True}, {"enum": [1]}, "x-open was removed"),
}
BREAKING_FOR_READERS: dict[str, tuple[Any, Any, str]] = {
    "type widened": ({"type": "string"}, {"type": ["string", "null"]}, "type null is allowed now"),
    "enum widened": ({"enum": ["a"]}, {"enum": ["a", "b"]}, '"b" is allowed now'),
    "enum given up": ({"enum": ["a"]}, {"type": "string"}, "any value is allowed now"),
    "pattern given up": ({"pattern": "a"}, {}, "pattern 'a' is not asked for any more"),
    "longer": ({"maxLength": 2}, {"maxLength": 3}, "maxLength is 3, it was 2"),
    "may be missing": ({"properties": {"a": {}}, "required": ["a"]}, {"properties": {"a": {}}}, "no longer required"),
    "opened": ({"additionalProperties": False}, {}, "opened"),
    "a choice more": ({"anyOf": [{"const": 1}]}, {"anyOf": [{"type": "null"}, {"const": 1}]}, "a choice more"),
}
COMPATIBLE: dict[str, tuple[Any, Any]] = {
    "words": ({"title": "a", "description": "b"}, {"title": "c", "deprecated": True}),
    "optional property": ({"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}}),
    "another order": ({"enum": [1, 2], "required": ["a", "b"]}, {"enum": [2, 1], "required": ["b", "a"]}),
    "const for enum": ({"const": 1}, {"enum": [1]}),
    "limit that says nothing": ({"type": "string"}, {"type": "string", "minLength": 0}),
    "open list grows": ({"enum": ["a"], "x-open": True}, {"enum": ["a", "b"], "x-open": True}),
    "type said twice": ({"enum": ["a"]}, {"type": "string", "enum": ["a"]}),
    "by reference": (
        {"properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
    ),
    "in allOf": ({"type": "string", "minLength": 1}, {"allOf": [{"type": "string"}, {"minLength": 1}]}),
    "choices in another order": ({"anyOf": [{"const": 1}, {"const": 2}]}, {"anyOf": [{"const": 2}, {"const": 1}]}),
}


@pytest.mark.parametrize(("old", "new", "said"), BREAKING_FOR_ALL.values(), ids=BREAKING_FOR_ALL)
@pytest.mark.parametrize("direction", Direction)
def test_what_was_valid_has_to_stay_valid(old: Any, new: Any, said: str, direction: Direction) -> None:
    assert any(said in reason for reason in reasons(old, new, direction)), reasons(old, new, direction)


@pytest.mark.parametrize(("old", "new", "said"), BREAKING_FOR_READERS.values(), ids=BREAKING_FOR_READERS)
def test_what_is_written_must_have_been_valid_and_what_is_read_need_not(old: Any, new: Any, said: str) -> None:
    assert any(said in reason for reason in reasons(old, new)), reasons(old, new)
    assert reasons(old, new, Direction.READ) == []


@pytest.mark.parametrize(("old", "new"), COMPATIBLE.values(), ids=COMPATIBLE)
def test_what_changes_nothing_for_anybody_is_allowed(old: Any, new: Any) -> None:
    assert reasons(old, new) == []


def test_a_removed_schema_breaks_and_a_new_one_does_not() -> None:
    (found,) = compare_sets({"a.v1": {}}, {"b.v1": {}})
    assert str(found) == "a.v1.json#: the schema was removed"
    assert compare_sets({"a.v1": {}}, {"a.v1": {}, "a.v2": {"type": "string"}}) == []


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "value": {"type": "string"}}}
    assert reasons(tree, copy.deepcopy(tree)) == []
    grown = copy.deepcopy(tree)
    grown["properties"]["value"] = {"type": "integer"}
    assert reasons(tree, grown) != []


def test_a_property_that_comes_has_to_be_what_unnamed_ones_had_to_be() -> None:
    votes = {"type": "object", "additionalProperties": {"type": "string"}}
    assert reasons(votes, {**votes, "properties": {"a": {"type": "string"}}}) == []
    assert reasons(votes, {**votes, "properties": {"a": {"type": "integer"}}}) != []


def test_a_reference_that_leads_nowhere_is_named() -> None:
    with pytest.raises(SchemaError, match=r"t\.v1\.json#: '#/\$defs/a' leads nowhere"):
        reasons({"$ref": "#/$defs/a"}, {})


# --- whatever the schema ---

NAMES = st.sampled_from("abcd")
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda types: {"type": types},
        st.lists(st.sampled_from(["string", "integer", "number", "null"]), min_size=1, unique=True),
    ),
    st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from(["x", "y", 1, None]), min_size=1, unique=True)),
    st.builds(lambda least: {"type": "string", "minLength": least}, st.integers(0, 3)),
    st.builds(lambda most: {"type": "integer", "maximum": most}, st.integers(0, 3)),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(properties: dict[str, Any], required: set[str]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": sorted(required & properties.keys())}

    return st.builds(made, st.dictionaries(NAMES, inner, max_size=3), st.sets(NAMES, max_size=2))


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.builds(lambda one, other: {"allOf": [one, other]}, inner, inner),
    ),
    max_leaves=6,
)
ROOTS = objects(SCHEMAS)
SIMPLE = ["", "x", "xy", "xyz", 0, 1, 2, 3, 9, 1.5, None, [], {}]
VALUES = st.recursive(
    st.sampled_from(SIMPLE),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


def object_schemas(node: Any) -> list[dict[str, Any]]:
    """Every place in a schema that names properties."""
    if isinstance(node, list):
        return [found for child in node for found in object_schemas(child)]
    if not isinstance(node, dict):
        return []
    here = [node] if isinstance(node.get("properties"), dict) else []
    return here + [found for child in node.values() for found in object_schemas(child)]


@given(ROOTS, st.sampled_from(Direction))
def test_a_schema_is_compatible_with_itself(schema: Any, direction: Direction) -> None:
    assert reasons(schema, copy.deepcopy(schema), direction) == []


@given(ROOTS, SCHEMAS, st.data(), st.sampled_from(Direction))
def test_adding_an_optional_property_anywhere_is_always_compatible(
    schema: Any, added: Any, data: st.DataObject, direction: Direction
) -> None:
    new = copy.deepcopy(schema)
    data.draw(st.sampled_from(object_schemas(new)))["properties"]["new"] = added
    assert reasons(schema, new, direction) == []


@given(ROOTS.filter(lambda schema: schema["properties"]), st.data(), st.sampled_from(Direction))
def test_removing_a_property_never_is(schema: Any, data: st.DataObject, direction: Direction) -> None:
    new = copy.deepcopy(schema)
    name = data.draw(st.sampled_from(sorted(new["properties"])))
    del new["properties"][name]
    assert any(f"the property '{name}' was removed" in reason for reason in reasons(schema, new, direction))


@given(ROOTS.filter(lambda schema: schema["properties"]), st.data())
def test_what_is_called_compatible_is(old: Any, data: st.DataObject) -> None:
    """Whatever change the check lets pass, a validator agrees, about any value of properties that both name."""
    new = copy.deepcopy(old)
    name = data.draw(st.sampled_from(sorted(new["properties"])))
    new["properties"][name] = data.draw(SCHEMAS)
    new["required"] = data.draw(st.sampled_from([new["required"], [], [name]]))
    come = property_names(new) - property_names(old)
    kept = {direction: not reasons(old, new, direction) for direction in Direction}
    before, after = jsonschema_rs.Draft202012Validator(old), jsonschema_rs.Draft202012Validator(new)
    other = data.draw(st.dictionaries(NAMES, VALUES, max_size=2))
    for value in [other, *({**other, name: one} for one in [*SIMPLE, data.draw(VALUES)])]:
        if come & names(value):
            continue
        if kept[Direction.READ]:
            assert after.is_valid(value) or not before.is_valid(value)
        if kept[Direction.WRITTEN]:
            assert before.is_valid(value) is after.is_valid(value)


def property_names(schema: Any) -> set[str]:
    return {name for place in object_schemas(schema) for name in place["properties"]}


def names(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(names, value))
    return set(value).union(*map(names, value.values())) if isinstance(value, dict) else set()


# --- folders, and the command ---


def test_the_latest_release_is_the_highest_version(tmp_path: Path) -> None:
    for name in ("0.9.0", "0.10.0", "0.2.0", "notes"):
        (tmp_path / name).mkdir()
    assert latest_release(tmp_path).name == "0.10.0"
    with pytest.raises(SchemaError, match="has no release to compare with"):
        latest_release(tmp_path / "notes")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "has no schemas"), ("[]", "is no JSON object"), ("{", "cannot be read")]
)
def test_a_folder_without_readable_schemas_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "a.v1.json").write_text(content)
    with pytest.raises(SchemaError, match=said):
        load_set(tmp_path)


def test_the_command_names_what_breaks_and_ends_with_1(runner: CliRunner, tmp_path: Path) -> None:
    whole = runner.invoke(app, ["schemas"])
    assert whole.exit_code == 0, whole.stderr
    assert "compatible with" in whole.stderr
    for name, schema in load_set(schemas_dir()).items():
        (tmp_path / f"{name}.json").write_bytes(orjson.dumps(schema))
    (tmp_path / "documents.v1.json").write_bytes(
        orjson.dumps({**load_set(schemas_dir())["documents.v1"], "required": ["id"]})
    )
    broken = runner.invoke(app, ["schemas", "--schemas", str(tmp_path)])
    assert broken.exit_code == 1
    assert "error: documents.v1.json#/required: 'id' is required now" in broken.stderr


def test_what_was_announced_is_a_warning(runner: CliRunner, tmp_path: Path) -> None:
    promised, now = tmp_path / "released" / "1.2", tmp_path / "now"
    for folder, schema in ((promised, {"enum": [1]}), (now, {"enum": [1, 2]})):
        folder.mkdir(parents=True)
        (folder / "a.v1.json").write_bytes(orjson.dumps(schema))
    arguments = ["schemas", "--schemas", str(now), "--against", str(promised)]
    assert runner.invoke(app, arguments).exit_code == 1
    announced = {"1.2": {"a.v1.json#: 2 is allowed now, which older readers do not know": "two is new"}}
    (promised.parent / "announced.json").write_bytes(orjson.dumps(announced))
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "warning: a.v1.json#: 2 is allowed now" in result.stderr
    assert "(announced: two is new)" in result.stderr
    (promised.parent / "announced.json").write_text("{")
    assert runner.invoke(app, arguments).exit_code == 1
