"""Results in a registry's frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
import pytest

from el4ner.errors import ConfigError
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.kafka.value_frames import TopicFrame, ValueFrames, registered_frames
from workers.messages import json_schemas
from workers.messages.envelope import Outgoing
from workers.messages.result_reading import result_values
from workers.messages.result_schemas import FramedFormat, result_schema
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError
from workers.registry.wire_format import Frame, split_frame
from workers.topics import Topic

AT_ONCE = Backoff(0.0, 0.0)
SETTINGS = KafkaSettings.model_validate(
    {"topic_prefix": "news.", "value_format": "json-schema", "registry": {"url": "http://registry:8081"}}
)


@dataclass
class Registrar:
    outages: int = 0
    refuses: bool = False
    subjects: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        if self.outages:
            self.outages -= 1
            raise RegistryAwayError("refused")
        if self.refuses:
            raise ConfigError("409 incompatible")
        self.subjects.append(subject)
        self.kinds.append(schema.kind)
        return 40 + len(self.subjects)


async def test_a_worker_registers_what_it_writes_and_waits_for_a_registry_that_is_away() -> None:
    registrar = Registrar(outages=3)
    frames = await registered_frames(SETTINGS, ["pipeline"], AT_ONCE, registrar)
    assert registrar.subjects == ["news.tagged-documents-value", "news.entity-mentions-value"]
    assert registrar.kinds == ["JSON", "JSON"]
    assert frames == ValueFrames({Topic.TAGGED_DOCUMENTS: TopicFrame(41), Topic.ENTITY_MENTIONS: TopicFrame(42)})


async def test_a_schema_that_is_refused_ends_the_start() -> None:
    with pytest.raises(ConfigError, match="409 incompatible"):
        await registered_frames(SETTINGS, ["redact"], AT_ONCE, Registrar(refuses=True))


@pytest.mark.parametrize(("settings", "stages"), [(KafkaSettings(), ["pipeline"]), (SETTINGS, ["extract", "classify"])])
async def test_who_writes_no_framed_results_asks_nobody(settings: KafkaSettings, stages: list[str]) -> None:
    registrar = Registrar()
    assert await registered_frames(settings, stages, AT_ONCE, registrar) == ValueFrames()
    assert registrar.subjects == []


def test_results_are_framed_and_nothing_else_is() -> None:
    frames = ValueFrames({Topic.TAGGED_DOCUMENTS: TopicFrame(41)})
    tagged = Outgoing(Topic.TAGGED_DOCUMENTS, b"key", b"{}", ())
    assert split_frame(frames.framed(tagged).value or b"") == Frame(41, b"{}")
    for other in (
        Outgoing(Topic.TAGGED_DOCUMENTS, b"key", None, ()),
        Outgoing(Topic.DEAD_LETTERS, b"key", b"{}", ()),
        Outgoing("a-changelog", b"key", b"{}", ()),
    ):
        assert frames.framed(other) == other


@pytest.mark.parametrize(("value_format", "kind"), [("avro", "AVRO"), ("protobuf", "PROTOBUF")])
async def test_binary_results_are_told_by_their_frame_and_headers(value_format: FramedFormat, kind: str) -> None:
    settings = SETTINGS.model_copy(update={"value_format": value_format})
    registrar = Registrar()
    frames = await registered_frames(settings, ["entities"], AT_ONCE, registrar)
    assert registrar.kinds == [kind, kind]
    merged = (json_schemas.schemas_dir() / "examples" / "entities.v1.merged.json").read_bytes()
    headers = (("ce_id", b"1"), ("content-type", b"application/json"))
    sent = frames.framed(Outgoing(Topic.ENTITIES, b"key", merged, headers))
    assert sent.headers == (("ce_id", b"1"), ("content-type", f"application/{value_format}".encode()))
    frame = split_frame(sent.value or b"")
    assert frame is not None
    assert frame.schema_id == 41
    values = result_values(Topic.ENTITIES)(41, result_schema(Topic.ENTITIES, value_format))
    assert values.read(frame.body) == orjson.loads(merged)
    assert frames.framed(Outgoing(Topic.ENTITIES, b"key", None, headers)).value is None


def test_frames_need_a_registry() -> None:
    with pytest.raises(ValueError, match=r"value_format json-schema needs registry\.url"):
        KafkaSettings(value_format="json-schema")
