"""The AsyncAPI document: it is what the code gives, AsyncAPI calls it valid, and its schemas say what the files say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from tests.support.paths import ROOT
from tools import asyncapi
from tools.asyncapi import bundled, document, written
from tools.schema_nodes import SchemaError
from workers.messages import json_schemas
from workers.topics import Topic

SPECIFICATION = ROOT / "tests" / "data" / "asyncapi" / "3.0.0.json"
EXAMPLES = sorted((json_schemas.schemas_dir() / "examples").glob("*.json"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document()


@pytest.fixture(scope="module")
def specification() -> Any:
    return jsonschema_rs.Draft7Validator(orjson.loads(SPECIFICATION.read_bytes()), offline=True)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def at(made: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        made = made[step.replace("~1", "/").replace("~0", "~")]
    return made


def test_the_file_is_what_the_code_gives(made: dict[str, Any]) -> None:
    file = json_schemas.schemas_dir() / "asyncapi.json"
    assert file.read_bytes() == written(made), "make it anew: make schemas"


def test_asyncapi_calls_it_valid(made: dict[str, Any], specification: Any) -> None:
    assert [error.message for error in specification.iter_errors(made)] == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["asyncapi"], "2.6.0"),
        (["operations", "extract.receive.documents", "action"], "takes"),
        (["channels", "documents", "bindings", "kafka", "partitions"], 0),
        (["components", "messages", "documents", "bindings", "kafka", "kye"], {}),
    ],
)
def test_asyncapi_would_notice(made: dict[str, Any], specification: Any, path: list[str], wrong: Any) -> None:
    broken = orjson.loads(written(made))
    parent = broken
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = wrong
    assert not specification.is_valid(broken)


def test_every_reference_leads_somewhere_inside(made: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(made) if isinstance(node.get("$ref"), str)]
    assert len(references) > 100
    for reference in references:
        assert at(made, reference) is not None


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.name.split(".")[0] in set(Topic)], ids=lambda p: p.stem
)
def test_the_schemas_inside_judge_as_those_in_the_files(path: Path) -> None:
    """Draft 7 with references to components, against 2020-12 with references to files."""
    name = path.name.split(".")[0]
    inside = {
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": bundled(topic.value for topic in Topic)},
    }
    valid = jsonschema_rs.Draft7Validator(inside, offline=True).is_valid(orjson.loads(path.read_bytes()))
    assert valid is (".invalid-" not in path.name)


def test_every_topic_is_a_channel_that_somebody_sends_to_or_receives_from(made: dict[str, Any]) -> None:
    assert set(made["channels"]) == {topic.value for topic in Topic}
    used = {operation["channel"]["$ref"].removeprefix("#/channels/") for operation in made["operations"].values()}
    assert used == set(made["channels"])


def test_documents_come_in_and_results_go_out(made: dict[str, Any]) -> None:
    actions = {
        (name.split(".")[0], operation["action"], name.split(".")[2]) for name, operation in made["operations"].items()
    }
    assert ("extract", "receive", "documents") in actions
    assert ("aggregate", "send", "tagged-documents") in actions
    assert not [action for action in actions if action[1:] == ("send", "documents")]
    assert {stage for stage, action, topic in actions if (action, topic) == ("send", "dead-letters")} >= {"extract"}


def test_what_is_written_in_transactions_says_so(made: dict[str, Any]) -> None:
    for topic in ("tagged-documents", "entity-mentions"):
        assert made["channels"][topic]["x-isolation-level"] == "read_committed"
        assert "isolation.level=read_committed" in made["channels"][topic]["description"]


def test_deletions_go_through_the_stages_and_come_out(made: dict[str, Any]) -> None:
    deletable = {name for name, channel in made["channels"].items() if "deletion" in channel["messages"]}
    assert {"documents", "span-candidates", "tagged-documents"} <= deletable
    assert not {"entity-mentions", "dead-letters"} & deletable


def test_every_way_to_connect_is_a_server_with_its_security(made: dict[str, Any]) -> None:
    servers = made["servers"]
    assert {name: server["protocol"] for name, server in servers.items()} == {
        "plaintext": "kafka",
        "ssl": "kafka-secure",
        "sasl-plaintext": "kafka",
        "sasl-ssl": "kafka-secure",
    }
    assert {"$ref": "#/components/securitySchemes/scramSha512"} in servers["sasl-ssl"]["security"]
    assert "security" not in servers["plaintext"]


def test_a_header_that_nobody_described_stops_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    described = {name: schema for name, schema in asyncapi._HEADERS.items() if name != "traceparent"}
    monkeypatch.setattr(asyncapi, "_HEADERS", described)
    with pytest.raises(SchemaError, match="does not describe the headers traceparent"):
        document()


def test_a_topic_that_nobody_sends_or_receives_stops_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncapi, "STAGE_TABLE", {"extract": asyncapi.STAGE_TABLE["extract"]})
    with pytest.raises(SchemaError, match=r"who sends and receives .*typed-entities"):
        document()


@pytest.mark.parametrize("schema", [{"prefixItems": []}, {"$ref": "urn:elsewhere#/$defs/x"}, {"$ref": "#/$defs/none"}])
def test_what_asyncapi_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any]) -> None:
    load = json_schemas.load
    monkeypatch.setattr(json_schemas, "load", lambda name: schema if name == "documents" else load(name))
    with pytest.raises(SchemaError, match="documents: "):
        bundled(["documents"])
