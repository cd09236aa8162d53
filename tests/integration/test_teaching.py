"""Pools that are taught while workers run: a fleet comes to one pool, whoever is killed, and loses no document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import orjson
import pytest

from el4ner.pools import load_pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Span
from tests.integration.stream_harness import STAGES, Stream, Worker, wait_until
from workers.messages.pool_examples import ExampleKey
from workers.teaching.topic_examples import send_examples
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

# What the lexicon knows is what is proposed, and demonstrations are drawn without a model.
TAUGHT: dict[str, Any] = {
    "method": {"proposals": ["lexicon"], "evidence": ["in_context"], "weights": "even"},
    "retrieval": {"kind": "random", "k": 3},
    "worker": {"batch_documents": 4},
}


JORDAN = {"Jordan": "organization", "June": "date"}


def example(name: str, at: int = 1) -> PoolExample:
    return PoolExample(f"{name} spoke to them.", ((Span(0, len(name), name), "person"),), {}, "ada", at)


def teach(stream: Stream, *examples: PoolExample) -> None:
    send_examples(stream.settings.kafka, [(ExampleKey("news", each.digest), each) for each in examples])


def expected(*examples: PoolExample) -> str:
    return taught_pool(load_pool("news"), examples).pool.fingerprint


def has_taken(worker: Worker, fingerprint: str) -> bool:
    assert worker.process.poll() is None, "it has ended"
    taught = [line["fingerprint"] for line in worker.lines() if line.get("event") == "the pool is taught"]
    return taught[-1:] == [fingerprint]


def documents(prefix: str, count: int = 40) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{number}", "text": f"Then Zorkowitz met {number} people."} for number in range(count)]


def fingerprints(stream: Stream, prefix: str) -> set[str]:
    return {
        manifest["pool_fingerprint"]
        for one in stream.tagged()
        if one["id"].startswith(prefix)
        for manifest in one["manifests"].values()
    }


def send(stream: Stream, prefix: str, sent: list[dict[str, Any]]) -> None:
    new = documents(prefix)
    stream.produce_documents(new)
    sent += new
    stream.wait_tagged(len(sent))


@pytest.mark.parametrize("stream", [{**TAUGHT, "worker": {"publish_stages": True}}], indirect=True)
def test_two_workers_converge_and_one_that_is_killed_knows_all_when_it_is_back(stream: Stream) -> None:
    stream.create_topics()
    stream.produce([(b"junk", b"{}"), (b"news:" + b"0" * 32, b"{")], topic=Topic.POOL_EXAMPLES)
    first, second = stream.start("pipeline"), stream.start("pipeline")
    for worker in (first, second):
        worker.wait_ready()
    sent: list[dict[str, Any]] = []
    send(stream, "before-", sent)
    assert fingerprints(stream, "before-") == {load_pool("news").fingerprint}
    zorko, mirko = example("Zorkowitz"), example("Mirkowitz", 2)
    teach(stream, zorko)
    for worker in (first, second):
        wait_until(lambda worker=worker: has_taken(worker, expected(zorko)), what="the example is in use")
    send(stream, "taught-", sent)
    assert fingerprints(stream, "taught-") == {expected(zorko)}
    # The correction is in effect: the name is a candidate now.
    proposed = candidates(stream)
    assert not any(proposed[one["id"]] for one in sent if one["id"].startswith("before-"))
    assert all(proposed[one["id"]] == ["Zorkowitz"] for one in sent if one["id"].startswith("taught-"))
    first.kill()
    teach(stream, mirko)
    again = stream.start("pipeline").wait_ready()
    assert has_taken(again, expected(zorko, mirko))  # before it was ready
    wait_until(lambda: has_taken(second, expected(zorko, mirko)), what="the example is in use")
    send(stream, "back-", sent)
    assert fingerprints(stream, "back-") == {expected(zorko, mirko)}
    # A null value withdraws.
    send_examples(stream.settings.kafka, [(ExampleKey("news", zorko.digest), None)])
    for worker in (again, second):
        wait_until(lambda worker=worker: has_taken(worker, expected(mirko)), what="the example is withdrawn")
    assert_each_once(stream, sent)
    assert stream.read(Topic.DEAD_LETTERS) == []
    refused = [line for line in again.lines() if "is no example" in line.get("event", "")]
    assert sorted(line["code"] for line in refused) == ["json", "key"]


def assert_each_once(stream: Stream, sent: list[dict[str, Any]]) -> None:
    tagged = stream.tagged()
    assert Counter(one["id"] for one in tagged) == Counter(one["id"] for one in sent)
    assert {one["status"] for one in tagged} == {"complete"}


def candidates(stream: Stream) -> dict[str, Sequence[str]]:
    return {
        data["document"]["id"]: [each["text"] for sentence in data["sentences"] for each in sentence["candidates"]]
        for data in map(orjson.loads, (record.value for record in stream.read(Topic.SPAN_CANDIDATES)))
    }


@pytest.mark.parametrize("stream", [TAUGHT], indirect=True)
def test_documents_between_stages_that_learn_at_different_times_come_out_complete(stream: Stream) -> None:
    """Also while a stage is away, and hears of nothing."""
    stream.create_topics()
    running = {stage: stream.start(stage) for stage in STAGES}
    for worker in running.values():
        worker.wait_ready()
    examples = [example(f"Zorko{letter}witz", at) for at, letter in enumerate("abcdefgh")]
    sent: list[dict[str, Any]] = []
    for number, each in enumerate(examples):
        new = documents(f"{number}-", 30)
        stream.produce_documents(new)
        sent += new
        teach(stream, each)
        if number == 2:
            running["classify"].kill()
        if number == 5:
            running["classify"] = stream.start("classify")
    stream.wait_tagged(len(sent))
    assert_each_once(stream, sent)
    assert stream.read(Topic.DEAD_LETTERS) == []
    for stage in STAGES[:3]:
        wait_until(lambda stage=stage: has_taken(running[stage], expected(*examples)), what=f"{stage} has all")


APART: dict[str, Any] = {
    **TAUGHT,
    "method": {**TAUGHT["method"], "proposals": ["lexicon", "models"], "repeats": "exact"},
    "worker": {"batch_documents": 4, "members_deadline_seconds": 200.0},
}
MEMBERS = ("instant-a", "instant-b")


def start_member(stream: Stream, member: str, *stages: str) -> Worker:
    return stream.start(*stages, environ={"EL4NER_WORKER__MEMBERS": f'["{member}"]'})


@pytest.mark.parametrize("stream", [APART], indirect=True)
def test_members_in_different_processes_converge_and_documents_in_between_wait_for_nobody(stream: Stream) -> None:
    """The deadline for members is longer than the test: whoever was waited for would fail it."""
    stream.create_topics()
    running = {member: start_member(stream, member, "extract", "classify") for member in MEMBERS}
    rest = stream.start("combine", "validate", "aggregate")
    for worker in (*running.values(), rest):
        worker.wait_ready()
    examples = [example(f"Zorko{letter}witz", at) for at, letter in enumerate("abcdef")]
    sent: list[dict[str, Any]] = []
    for number, each in enumerate(examples):
        new = documents(f"{number}-", 30)
        stream.produce_documents(new)
        sent += new
        teach(stream, each)
        if number == 3:
            running["instant-b"].kill()
            running["instant-b"] = start_member(stream, "instant-b", "extract", "classify")
    stream.wait_tagged(len(sent))
    for member in MEMBERS:
        wait_until(
            lambda member=member: has_taken(running[member], expected(*examples)), what=f"{member} has all of them"
        )
    zorko = example("Zorkowitz", 9)
    teach(stream, zorko)
    for member in MEMBERS:
        wait_until(lambda member=member: has_taken(running[member], expected(*examples, zorko)), what="the correction")
    send(stream, "taught-", sent)
    assert_each_once(stream, sent)
    assert stream.read(Topic.DEAD_LETTERS) == []
    assert fingerprints(stream, "taught-") == {expected(*examples, zorko)}
    last = [one["manifests"] for one in stream.tagged() if one["id"].startswith("taught-")]
    assert {tuple(sorted(manifests["classify"]["members"])) for manifests in last} == {MEMBERS}
    assert not any("missing_members" in manifest for manifests in last for manifest in manifests.values())
    proposed = candidates(stream)
    assert all("Zorkowitz" in proposed[one["id"]] for one in sent if one["id"].startswith("taught-"))


@pytest.mark.parametrize("stream", [{**TAUGHT, "serve": {"follow_examples": True}}], indirect=True)
def test_the_http_service_follows_too_if_it_is_asked_to(stream: Stream) -> None:
    stream.create_topics()
    zorko = example("Zorkowitz")
    teach(stream, zorko)
    service = stream.start("--log-format", "json", "serve", "--port", "0", module="workers.cli").wait_ready()
    port = next(line["port"] for line in service.lines() if line.get("event") == "listening")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:

        def fingerprint() -> str:
            answer = client.post("/v1/tag", json={"texts": ["Then Zorkowitz spoke."]}).json()
            return str(answer["documents"][0]["manifests"]["classify"]["pool_fingerprint"])

        assert fingerprint() == expected(zorko)
        mirko = example("Mirkowitz", 2)
        teach(stream, mirko)
        wait_until(lambda: fingerprint() == expected(zorko, mirko), what="the service is taught")
    assert service.stop() == 0


def start_whole(stream: Stream) -> list[Worker]:
    return [stream.start("pipeline")]


def start_apart(stream: Stream) -> list[Worker]:
    """The member that reads boundaries extracts. Those with models come first."""
    members = stream.settings.ensemble.members
    proposer = stream.settings.proposer
    return [
        *(start_member(stream, name, "classify", *["extract"] * (name == proposer)) for name in members),
        stream.start("combine", "validate", "aggregate"),
    ]


@pytest.mark.models
@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", [start_whole, start_apart])
@pytest.mark.parametrize(
    "stream",
    [{"ensemble": {"preset": "default"}, "worker": {"batch_documents": 4}}],
    indirect=True,
)
def test_a_correction_is_in_effect_with_real_models(
    stream: Stream, start: Callable[[Stream], Sequence[Worker]]
) -> None:
    """The sentence, and another one that has the name in the same use; one that has it in another keeps its own."""
    stream.create_topics()
    workers = start(stream)
    for worker in workers:
        worker.wait_ready(timeout=400)
    texts = ["Shares of Jordan rose after the merger was announced.", "The king of Jordan visited Egypt."]

    def types(prefix: str, count: int) -> list[str | None]:
        stream.produce_documents([{"id": f"{prefix}{at}", "text": text} for at, text in enumerate(texts)])
        stream.wait_tagged(count, timeout=120)
        entities = {
            (one["id"], entity["text"]): entity["type"] for one in stream.tagged() for entity in one["entities"]
        }
        return [entities.get((f"{prefix}{at}", "Jordan")) for at in range(len(texts))]

    assert types("before-", 2) == ["location", "location"]
    text = "Analysts at Jordan expect the merger to close in June."
    spans = [(Span(text.index(name), text.index(name) + len(name), name), label) for name, label in JORDAN.items()]
    correction = PoolExample(text, tuple(spans), {}, "ada", 1)
    teach(stream, correction)
    for worker in workers:
        if set(worker.stages) & {"pipeline", "classify"}:
            wait_until(lambda worker=worker: has_taken(worker, expected(correction)), timeout=120, what="it is in use")
    assert types("after-", 4) == ["organization", "location"]
    manifests = [one["manifests"]["classify"] for one in stream.tagged() if one["id"].startswith("after-")]
    assert {manifest["pool_fingerprint"] for manifest in manifests} == {expected(correction)}
    assert all(sorted(manifest["members"]) == sorted(stream.settings.ensemble.members) for manifest in manifests)
