"""The AsyncAPI 3.0 document of the pipeline: topics, messages, and who sends and receives what, from the code.

Names, partitions and settings come from :mod:`workers.topics`, flows from :mod:`workers.stages.table`, headers from
:mod:`workers.messages.headers` and :mod:`workers.messages.replay_headers`, payloads from ``schemas/``, ways to connect
from :mod:`workers.config`. What the code does not say, a table here does; a topic or a header that is in neither stops
the generation. The document lies in ``schemas/asyncapi.json``; a test holds that it is what the code gives.

The schemas are JSON Schema 2020-12. AsyncAPI's own dialect is draft 7, and tools read no ``$id`` of another file: they
are put into the document (:func:`bundled`), each definition with a place of its own, saying the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, get_args

import orjson

from el4ner.participation import SPLITTABLE
from tools.schema_nodes import SchemaError
from workers.config import KafkaSettings
from workers.messages import json_schemas
from workers.messages.envelope import Origin, Record
from workers.messages.headers import Trace, cloud_event
from workers.messages.replay_headers import REPLAY, REPLAY_HEADERS
from workers.messages.result_encoding import CONTENT_TYPES
from workers.messages.result_schemas import RESULT_TOPICS
from workers.roles import AGGREGATE, COMBINE, ENTITIES, REDACT
from workers.stages.stage import STAGE, answer_headers
from workers.stages.table import STAGE_TABLE
from workers.topics import CANONICAL, OPTIONAL, REDACTION, Topic, app_id, plan, topic_name

__all__ = ["bundled", "document", "written"]

BINDING: Final = "0.5.0"
_COMPONENTS: Final = "#/components/schemas/"
_READ_COMMITTED: Final = (
    "Written in transactions: read it with isolation.level=read_committed (librdkafka's default; Java's and Python's "
    "clients have read_uncommitted), or messages appear that were taken back."
)

_COMMITTED: Final = frozenset(
    {Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS, *REDACTION, *CANONICAL} - {Topic.ENTITY_DECISIONS}
)
_BYTES_AS_THEY_CAME: Final = frozenset({Topic.DEAD_LETTERS})
"""Topics whose schema is about the headers: the value is another message's."""

_KEYS: Final[Mapping[Topic, str]] = {
    Topic.DOCUMENTS: "Any; the document's id if the value has none and the key is UTF-8.",
    Topic.ENTITY_MENTIONS: "The entity's type and normalised surface: `type:surface`.",
    Topic.DEAD_LETTERS: "The original key.",
    Topic.POOL_EXAMPLES: "`POOL:DIGEST`: the pool's name, and the first 32 hexadecimal digits of the SHA-256 of the "
    "text in UTF-8.",
    Topic.ENTITIES: "The entity's id.",
    Topic.ENTITY_TRENDS: "The type and the start of the window: `type:start`.",
    Topic.ENTITY_DECISIONS: "The decision's id.",
}
_DOCUMENT_KEY: Final = "The document's id."

_JSON: Final = "application/json"
_TEXT: Final = {"type": "string"}
_DIGITS: Final = {"type": "string", "pattern": "^[0-9]+$"}
_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": {**_TEXT, "description": "Messages with the same id say the same: a repeated one is known by it."},
    "ce_source": {**_TEXT, "description": "`el4ner/` and the stage."},
    "ce_type": _TEXT,
    "ce_time": {**_TEXT, "format": "date-time"},
    "ce_subject": {**_TEXT, "description": "The document's id."},
    "ce_dataschema": {**_TEXT, "description": "The `$id` of the schema of the value."},
    "content-type": {"const": _JSON},
    "traceparent": {**_TEXT, "description": "W3C Trace Context: one trace through all stages."},
    "tracestate": {**_TEXT, "description": "W3C Trace Context, handed on unread."},
    "el4ner-revision": {**_DIGITS, "description": "The document's revision."},
    "el4ner-stage": {"enum": list(SPLITTABLE), "description": "Whose answer it is a part of."},
    "el4ner-status": {"enum": ["ok", "failed"], "description": "The stage's answer, as in the value."},
    "el4ner-position": {**_DIGITS, "description": "Offset of the document in its partition of `documents`."},
    "el4ner-timestamp": {**_DIGITS, "description": "Of the document's message; milliseconds since the epoch."},
    "el4ner-replay": {**_DIGITS, "description": "How often the message was sent again from the dead letters."},
    "el4ner-replay-of": {**_TEXT, "description": "The dead letter that it was, PARTITION-OFFSET."},
    "el4ner-first-failed-at": {**_DIGITS, "description": "When it failed first; milliseconds since the epoch."},
}
_OPTIONAL: Final = frozenset(REPLAY_HEADERS) | {"tracestate", "el4ner-position", "el4ner-timestamp"}

_SASL: Final[Mapping[str, str]] = {
    "PLAIN": "plain",
    "SCRAM-SHA-256": "scramSha256",
    "SCRAM-SHA-512": "scramSha512",
}
_CERTIFICATE: Final = "certificate"
_DELETION: Final = "deletion"
_WITHDRAWAL: Final = "withdrawal"
_GONE: Final = "gone"
_OVER: Final = "over"
_WITHDRAWN: Final = {Topic.POOL_EXAMPLES: _WITHDRAWAL, Topic.ENTITIES: _GONE, Topic.ENTITY_TRENDS: _OVER}
"""Topics whose null values are about something else than a document, and what these messages are called."""
_TEACHER: Final = "teacher"
_EDITOR: Final = "entity-editor"
"""Whoever teaches pools: the command line, the page."""

# What JSON Schema 2020-12 has and draft 7 has not: a schema that used it could not be put into the document.
_NOT_IN_DRAFT_7: Final = frozenset(
    {"prefixItems", "unevaluatedProperties", "unevaluatedItems", "dependentRequired", "dependentSchemas"}
    | {"minContains", "maxContains", "$anchor", "$dynamicRef", "$dynamicAnchor"}
)


@dataclass(frozen=True, slots=True)
class _Flow:
    """One kind of worker."""

    name: str
    receives: tuple[Topic, ...]
    sends: tuple[Topic, ...]
    follows: tuple[Topic, ...] = ()
    """Received in no consumer group: every process reads all of it."""


def document() -> dict[str, Any]:
    """The document.

    Raises:
        SchemaError: a topic, header or way to connect is not described; or a schema cannot be put into it.
    """
    settings = KafkaSettings()
    servers = _servers()
    channels = {topic.value: _channel(settings, topic, servers) for topic in Topic}
    return {
        "asyncapi": "3.0.0",
        "id": "urn:el4ner",
        "info": {
            "title": "el4ner",
            "version": metadata.version("el4ner"),
            "description": "Real-time named-entity tagging of text streams. What is described here is el4ner itself: "
            "it receives documents and sends what it found. Every value is UTF-8 JSON, but a dead letter's.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": servers,
        "channels": channels,
        "operations": dict(_operations(settings)),
        "components": {
            "schemas": bundled(topic.value for topic in Topic),
            "messages": {**{topic.value: _message(topic) for topic in Topic}, **_deletions()},
            "securitySchemes": _security_schemes(),
        },
    }


def written(document: Mapping[str, Any]) -> bytes:
    """The document as its file has it."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def bundled(names: Iterable[str]) -> dict[str, Any]:
    """The schemas of these names, and every definition that they share, as AsyncAPI's components.

    Raises:
        SchemaError: a schema uses what draft 7 does not have, or refers to what is not there.
    """
    definitions = {name: _in_place(json_schemas.load(name), name) for name in names}
    common = json_schemas.load(json_schemas.COMMON)
    definitions |= {_shared(name): _in_place(part, json_schemas.COMMON) for name, part in common["$defs"].items()}
    return definitions


def _shared(definition: str) -> str:
    return f"{json_schemas.COMMON}.{definition}"


def _in_place(node: Any, name: str) -> Any:
    """A schema with its references leading to other components; ``name``: whose file it is."""
    if isinstance(node, list):
        return [_in_place(child, name) for child in node]
    if not isinstance(node, dict):
        return node
    unknown = node.keys() & _NOT_IN_DRAFT_7
    if unknown:
        raise SchemaError(f"{name}: {', '.join(sorted(unknown))} is not known to AsyncAPI's dialect, draft 7")
    placed = {
        keyword: _in_place(child, name) for keyword, child in node.items() if keyword not in {"$schema", "$id", "$ref"}
    }
    if "$id" in node:
        placed["x-schema-id"] = node["$id"]
    if "$ref" not in node:
        return placed
    reference = {"$ref": _moved(node["$ref"], name)}
    # Draft 7 passes over what stands beside a reference.
    return {**placed, "allOf": [reference, *placed.get("allOf", ())]} if placed else reference


def _moved(reference: str, name: str) -> str:
    base, _, fragment = reference.partition("#/$defs/")
    known = base in {json_schemas.schema_id(json_schemas.COMMON), "" if name == json_schemas.COMMON else None}
    if not known or fragment not in json_schemas.load(json_schemas.COMMON)["$defs"]:
        raise SchemaError(f"{name}: {reference!r} is no definition of {json_schemas.COMMON}")
    return f"{_COMPONENTS}{_shared(fragment)}"


def _flows() -> list[_Flow]:
    stages = list(STAGE_TABLE.values())
    flows = []
    for stage in stages:
        answers = (Topic.MEMBER_ANSWERS,) if stage.name in SPLITTABLE else ()
        sends = (stage.output, *answers, Topic.DEAD_LETTERS)
        flows.append(_Flow(stage.name, (stage.input,), sends, follows=(Topic.POOL_EXAMPLES,)))
    combined = tuple(stage.output for stage in stages if stage.name in SPLITTABLE)
    flows.append(_Flow(COMBINE, (Topic.MEMBER_ANSWERS,), (*combined, Topic.DEAD_LETTERS)))
    flows.append(_Flow(_TEACHER, (), (Topic.POOL_EXAMPLES,)))
    outcomes = (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS, Topic.DEAD_LETTERS)
    flows.append(_Flow(AGGREGATE, tuple(stage.output for stage in stages), outcomes))
    flows.append(_Flow(REDACT, (Topic.TAGGED_DOCUMENTS,), (*REDACTION, Topic.DEAD_LETTERS)))
    flows.append(_Flow(_EDITOR, (), (Topic.ENTITY_DECISIONS,)))
    book = (Topic.ENTITY_OCCURRENCES, Topic.ENTITIES, Topic.ENTITY_TRENDS, Topic.DEAD_LETTERS)
    flows.append(_Flow(ENTITIES, (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS), book))
    described = {topic for flow in flows for topic in (*flow.receives, *flow.sends)}
    if missing := set(Topic) - described:
        raise SchemaError(f"tools/asyncapi.py does not say who sends and receives {', '.join(sorted(missing))}")
    return flows


def _deletable() -> frozenset[Topic]:
    """A null value on ``documents`` goes through the stages and comes out; on ``pool-examples`` it withdraws one."""
    stages = STAGE_TABLE.values()
    return frozenset(
        {Topic.TAGGED_DOCUMENTS, Topic.MEMBER_ANSWERS, *REDACTION, *_WITHDRAWN}.union(
            *({stage.input, stage.output} for stage in stages)
        )
    )


def _operations(settings: KafkaSettings) -> Iterable[tuple[str, dict[str, Any]]]:
    for flow in _flows():
        for action, topics in (("receive", (*flow.receives, *flow.follows)), ("send", flow.sends)):
            for topic in topics:
                operation: dict[str, Any] = {
                    "action": action,
                    "title": f"{flow.name} {action}s {topic.value}",
                    "channel": {"$ref": f"#/channels/{topic.value}"},
                    "messages": [{"$ref": f"#/channels/{topic.value}/messages/{name}"} for name in _messages(topic)],
                }
                binding: dict[str, Any] = {"bindingVersion": BINDING}
                if topic in flow.receives:
                    group = {"type": "string", "const": app_id(settings, flow.name)}
                    binding = {"groupId": {**group, "description": "Behind kafka.topic_prefix."}, **binding}
                yield f"{flow.name}.{action}.{topic.value}", {**operation, "bindings": {"kafka": binding}}


def _messages(topic: Topic) -> dict[str, str]:
    """Names in the channel to names in the components."""
    deletion = _WITHDRAWN.get(topic, _DELETION)
    return {topic.value: topic.value} | ({deletion: deletion} if topic in _deletable() else {})


def _channel(settings: KafkaSettings, topic: Topic, servers: Iterable[str]) -> dict[str, Any]:
    planned = next(each for each in plan(settings, OPTIONAL) if each.name == topic_name(settings, topic))
    schema = json_schemas.load(topic.value)
    committed = topic in _COMMITTED
    configuration = {
        key: value.split(",") if key == "cleanup.policy" else orjson.loads(value)
        for key, value in planned.configs.items()
    }
    return {
        "address": f"{{prefix}}{topic.value}",
        "title": schema["title"],
        "description": _READ_COMMITTED if committed else schema["description"],
        "servers": [{"$ref": f"#/servers/{name}"} for name in servers],
        "parameters": {"prefix": {"default": "", "description": "`kafka.topic_prefix`."}},
        "messages": {name: {"$ref": f"#/components/messages/{target}"} for name, target in _messages(topic).items()},
        "bindings": {
            "kafka": {
                "topic": planned.name,
                "partitions": planned.partitions,
                "replicas": planned.replication,
                "topicConfiguration": configuration,
                "bindingVersion": BINDING,
            }
        },
        **({"x-isolation-level": "read_committed"} if committed else {}),
    }


def _message(topic: Topic) -> dict[str, Any]:
    schema = json_schemas.load(topic.value)
    message: dict[str, Any] = {
        "name": topic.value,
        "title": schema["title"],
        "summary": schema["description"],
        "bindings": {"kafka": _key(_KEYS.get(topic, _DOCUMENT_KEY))},
    }
    reference = {"$ref": f"{_COMPONENTS}{topic.value}"}
    if topic in _BYTES_AS_THEY_CAME:
        anything = {"description": "The original value, byte for byte: not always JSON."}
        return {**message, "contentType": "application/octet-stream", "headers": reference, "payload": anything}
    examples = [
        {"name": path.name.removesuffix(".json").rpartition(".")[2], "payload": orjson.loads(path.read_bytes())}
        for path in sorted((json_schemas.schemas_dir() / "examples").glob(f"{topic.value}.v1.*.json"))
        if ".invalid-" not in path.name
    ]
    payload = {
        "contentType": _JSON,
        "headers": _headers(topic),
        "payload": reference,
        "examples": examples,
    }
    return {**message, **payload}


def _deletions() -> dict[str, Any]:
    """Messages without a value."""
    described = {
        _DELETION: ("A deletion", "A null value: the document of that key is deleted.", _DOCUMENT_KEY),
        _WITHDRAWAL: (
            "A withdrawal",
            "A null value: the example of that key is withdrawn.",
            _KEYS[Topic.POOL_EXAMPLES],
        ),
        _GONE: (
            "An entity that is gone",
            "A null value: no document of the kept windows has it any more.",
            _KEYS[Topic.ENTITIES],
        ),
        _OVER: (
            "A window that is over",
            "A null value: the window is not kept any more, or has no entity of that type.",
            _KEYS[Topic.ENTITY_TRENDS],
        ),
    }
    return {
        name: {
            "name": name,
            "title": title,
            "summary": summary,
            "contentType": _JSON,
            "payload": {"type": "null"},
            "bindings": {"kafka": _key(key)},
        }
        for name, (title, summary, key) in described.items()
    }


def _key(description: str) -> dict[str, Any]:
    return {"key": {"type": "string", "description": description}, "bindingVersion": BINDING}


def _headers(topic: Topic) -> dict[str, Any]:
    """The headers of a message of el4ner's own; those of ``documents`` may all be missing, for others write them."""
    trace = Trace("0" * 32, "0" * 16, state=b"")
    event = cloud_event(event_id="", source="", event_type="", time_ms=0, subject="", schema="", trace=trace)
    names = [name for name, _ in event]
    if topic is Topic.MEMBER_ANSWERS:
        names.append(STAGE)
    if topic in {stage.output for stage in STAGE_TABLE.values()} | {Topic.MEMBER_ANSWERS}:
        names += [
            name
            for name, _ in answer_headers(Record(Topic.DOCUMENTS, "", 0, 0, 0, None, None, ((REPLAY, b"1"),)), 0, "ok")
        ]
    elif topic in (Topic.TAGGED_DOCUMENTS, *REDACTION):
        names += [name for name, _ in Origin(0, 0, 1).headers]
    if any(topic in flow.receives for flow in _flows()):
        names += [name for name in REPLAY_HEADERS if name not in names]
    if unknown := [name for name in names if name not in _HEADERS]:
        raise SchemaError(f"tools/asyncapi.py does not describe the headers {', '.join(unknown)}")
    properties = {name: dict(_HEADERS[name]) for name in names}
    properties["ce_type"] = {"const": f"el4ner.{topic.value}.v1"}
    properties["ce_dataschema"] |= {"const": json_schemas.schema_id(topic.value)}
    if topic in RESULT_TOPICS:
        properties["content-type"] = {
            "enum": list(dict.fromkeys(kind.decode() for kind in CONTENT_TYPES.values())),
            "description": f"`{_JSON}`, unless `kafka.value_format` is `avro` or `protobuf`.",
        }
    required = [] if topic is Topic.DOCUMENTS else [name for name in names if name not in _OPTIONAL]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _servers() -> dict[str, Any]:
    """One for each way in which ``kafka.security_protocol`` connects."""
    servers = {}
    for protocol in _choices("security_protocol"):
        tls, sasl = protocol.endswith("SSL"), protocol.startswith("SASL")
        names = _security_names() if sasl else [_CERTIFICATE] if tls else []
        servers[protocol.lower().replace("_", "-")] = {
            "host": "{bootstrap}",
            "protocol": "kafka-secure" if tls else "kafka",
            "description": f'`kafka.security_protocol = "{protocol}"`.',
            "variables": {
                "bootstrap": {
                    "default": KafkaSettings.model_fields["bootstrap_servers"].get_default(),
                    "description": "`kafka.bootstrap_servers`.",
                }
            },
            **({"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in names]} if names else {}),
        }
    return servers


def _security_names() -> list[str]:
    unknown = [mechanism for mechanism in _choices("sasl_mechanism") if mechanism not in _SASL]
    if unknown:
        raise SchemaError(f"tools/asyncapi.py does not describe the SASL mechanisms {', '.join(unknown)}")
    return [_SASL[mechanism] for mechanism in _choices("sasl_mechanism")]


def _security_schemes() -> dict[str, Any]:
    schemes: dict[str, Any] = {name: {"type": name} for name in _security_names()}
    certificate = "`kafka.ssl_certfile`: where the broker asks clients for a certificate."
    return {**schemes, _CERTIFICATE: {"type": "X509", "description": certificate}}


def _choices(setting: str) -> list[str]:
    """The values that a setting of ``[kafka]`` may have."""
    annotation = KafkaSettings.model_fields[setting].annotation
    choices: list[str] = []
    for choice in get_args(annotation):
        # A Literal, or a Literal or None.
        choices += [choice] if isinstance(choice, str) else [text for text in get_args(choice) if isinstance(text, str)]
    return choices
