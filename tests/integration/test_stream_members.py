"""Members of one ensemble in processes of their own: the result is that of one process, or says who is missing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.integration.test_stream import assert_exact, documents
from workers.config import WorkerSettings
from workers.ensemble.members import group_of
from workers.messages import json_schemas
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

MEMBERS = ("instant-a", "instant-b")
APART: dict[str, Any] = {
    "method": {"proposals": ["chunks", "lexicon", "models"], "repeats": "exact"},
    "worker": {"members_deadline_seconds": 60.0},
}
IMPATIENT: dict[str, Any] = {**APART, "worker": {"members_deadline_seconds": 2.0}}


def start_member(stream: Stream, member: str, *stages: str) -> Worker:
    """A process with one member, which takes its part in extraction and classification."""
    return stream.start(*(stages or ("extract", "classify")), environ={"EL4NER_WORKER__MEMBERS": f'["{member}"]'})


def missing(tagged: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """By document and stage, the members that the result does without."""
    return {
        one["id"]: {
            stage: manifest["missing_members"]
            for stage, manifest in one["manifests"].items()
            if "missing_members" in manifest
        }
        for one in tagged
    }


def found(tagged: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {one["id"]: one for one in tagged}


def nothing_is_behind(stream: Stream, members: Iterable[str] = MEMBERS) -> bool:
    """Whether everything that was written was finished by all who read it."""
    groups = {"combine": [Topic.MEMBER_ANSWERS], "validate": [Topic.TYPED_ENTITIES]}
    groups["aggregate"] = [Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS]
    for member in members:
        own = stream.settings.model_copy(update={"worker": WorkerSettings(members=[member])})
        groups[group_of("extract", own)] = [Topic.DOCUMENTS]
        groups[group_of("classify", own)] = [Topic.SPAN_CANDIDATES]
    for group, topics in groups.items():
        committed = stream.committed(group)
        for topic in topics:
            done = sum(offset for (name, _), offset in committed.items() if name == stream.name(topic))
            if done < stream.ends(topic):
                return False
    return True


@pytest.fixture
def whole(stream: Stream, tmp_path: Path) -> Iterable[Stream]:
    """Topics of their own, with the same settings: for one process that does all."""
    folder = tmp_path / "whole"
    folder.mkdir()
    made = Stream(stream.bootstrap, stream.redis_url, f"t{uuid.uuid4().hex[:8]}.", folder, stream.sections)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("stream", [APART], indirect=True)
def test_members_apart_give_what_one_process_gives(stream: Stream, whole: Stream) -> None:
    sent = documents(120)
    for one in (stream, whole):
        one.create_topics()
    together = whole.start("all")
    apart = [*(start_member(stream, member) for member in MEMBERS), stream.start("combine", "validate", "aggregate")]
    for worker in (together, *apart):
        worker.wait_ready()
    for one in (stream, whole):
        one.produce_documents(sent)
    for one in (stream, whole):
        one.wait_tagged(len(sent))
    tagged = stream.tagged()
    assert_exact(tagged, sent)
    assert found(tagged) == found(whole.tagged())
    assert missing(tagged) == {one["id"]: {} for one in sent}
    assert set(tagged[0]["manifests"]["classify"]["members"]) == set(MEMBERS)
    answers = stream.read(Topic.MEMBER_ANSWERS)
    assert len(answers) == 2 * 2 * len(sent)
    for record in answers[:100]:
        json_schemas.validate("member-answers", orjson.loads(record.value))
    assert stream.ends(Topic.SPAN_CANDIDATES) == stream.ends(Topic.TYPED_ENTITIES) == len(sent)
    # A deletion goes through the members' processes too.
    stream.produce([(b"d-7", None)])
    wait_until(
        lambda: any(record.value is None and record.key == b"d-7" for record in stream.read(Topic.TAGGED_DOCUMENTS)),
        what="the deletion",
    )
    wait_until(lambda: nothing_is_behind(stream), what="all committed")
    assert all(worker.stop() == 0 for worker in (together, *apart))


@pytest.mark.parametrize("stream", [IMPATIENT], indirect=True)
def test_without_a_member_documents_come_out_in_time_and_say_so(stream: Stream) -> None:
    stream.create_topics()
    running = {member: start_member(stream, member) for member in MEMBERS}
    rest = stream.start("combine", "validate", "aggregate")
    for worker in (*running.values(), rest):
        worker.wait_ready()
    first, second, third = documents(40, "first"), documents(40, "second"), documents(40, "third")
    stream.produce_documents(first)
    stream.wait_tagged(40)
    running["instant-a"].kill()
    stream.produce_documents(second)
    stream.wait_tagged(80)
    without = missing(stream.tagged())
    assert all(without[one["id"]] == {} for one in first)
    for one in second:
        assert without[one["id"]] == {"extract": ["instant-a"], "classify": ["instant-a"]}
    assert any(line.get("event") == "documents go on without some members" for line in rest.lines())
    before = found(stream.tagged())
    # It answers now, and too late.
    start_member(stream, "instant-a").wait_ready()
    wait_until(lambda: nothing_is_behind(stream), what="all committed")
    assert found(stream.tagged()) == before
    stream.produce_documents(third)
    stream.wait_tagged(120)
    assert_exact(stream.tagged(), [*first, *second, *third])
    assert all(missing(stream.tagged())[one["id"]] == {} for one in third)


@pytest.mark.parametrize("stream", [APART], indirect=True)
def test_kill_9_of_the_combiner_and_of_members_loses_nothing_and_repeats_nothing(stream: Stream) -> None:
    stream.create_topics()
    start: dict[str, Callable[[], Worker]] = {
        **{member: lambda member=member: start_member(stream, member) for member in MEMBERS},  # type: ignore[misc]
        "combine": lambda: stream.start("combine"),
    }
    running = {name: begin() for name, begin in start.items()}
    rest = stream.start("validate", "aggregate")
    for worker in (*running.values(), rest):
        worker.wait_ready()
    sent = documents(640)
    for round_, name in enumerate(("combine", "instant-a", "combine", "instant-b")):
        stream.produce_documents(sent[round_ * 160 : (round_ + 1) * 160])
        stream.wait_tagged(round_ * 160 + 20)
        running[name].kill()
        running[name] = start[name]()
    stream.wait_tagged(len(sent))
    for worker in running.values():
        worker.wait_ready()
    wait_until(lambda: nothing_is_behind(stream), timeout=90, what="all committed")
    assert_exact(stream.tagged(), sent)
    assert set(map(str, missing(stream.tagged()).values())) == {"{}"}
    assert all(worker.stop() == 0 for worker in (*running.values(), rest))
