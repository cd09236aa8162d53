"""The page's server with a real broker, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest

from el4ner.serialize import dumps
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_dlq import letter_to
from tests.support.running_page import RunningPage, tagged_value
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(120),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

ADA = tagged_value("ada", "Ada Lovelace met Babbage in London.", ("Ada Lovelace", "person"), ("London", "location"))


@contextmanager
def client_of(stream: Stream, **ui: Any) -> Iterator[httpx.Client]:
    """Of a page that follows the topic."""
    with (
        RunningPage(stream.settings, ui) as page,
        httpx.Client(base_url=page.url, timeout=60, trust_env=False) as client,
    ):
        wait_until(lambda: status(client)["broker"] == "following", what="the page follows")
        yield client


def asking(page: RunningPage) -> httpx.Client:
    return httpx.Client(base_url=page.url, timeout=60, trust_env=False)


def events(client: httpx.Client, query: str) -> Iterator[tuple[str, Any]]:
    with client.stream("GET", f"/api/events?{query}") as response:
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, orjson.loads(line.removeprefix("data: "))


def status(client: httpx.Client) -> Any:
    return next(data for name, data in events(client, "documents=no") if name == "status")


def write(stream: Stream, *values: dict[str, Any]) -> None:
    stream.produce([(value["id"].encode(), dumps(value)) for value in values], topic=Topic.TAGGED_DOCUMENTS)


def test_what_comes_is_sent_and_what_is_gone_from_memory_is_found_on_the_broker(stream: Stream) -> None:
    stream.create_topics()
    write(stream, {**ADA, "id": "before"})
    with client_of(stream, keep_documents=1) as client:
        write(stream, *({**ADA, "id": f"ada-{number}"} for number in range(3)))
        seen: set[str] = set()
        for name, data in events(client, "documents=yes&type=person"):
            if name == "documents":
                seen |= {document["id"] for document in data["documents"]}
            report = client.get("/api/trends").json()
            if report["mentions"] == 6:
                break
        assert "before" not in seen
        answer = client.get("/api/mentions", params={"type": "person", "name": "Ada Lovelace"})
        assert answer.status_code == 200, answer.text
        assert {document["id"] for document in answer.json()["documents"]} == {"ada-0", "ada-1", "ada-2"}
        # A document that is deleted is forgotten.
        assert latest(client) < {"ada-0", "ada-1", "ada-2"}
        stream.produce([(f"ada-{number}".encode(), None) for number in range(3)], topic=Topic.TAGGED_DOCUMENTS)
        wait_until(lambda: latest(client) == set(), what="it is forgotten")


def latest(client: httpx.Client) -> set[str]:
    """What a viewer who comes now is shown at first."""
    shown: set[str] = set()
    states = 0
    for name, data in events(client, "documents=yes"):
        states += name == "status"
        if states == 2:
            return shown
        if name == "documents":
            shown |= {document["id"] for document in data["documents"]}
    raise AssertionError("the events ended")


def test_letters_are_listed_shown_and_sent_again(stream: Stream) -> None:
    stream.create_topics()
    letter_to(stream, b"not JSON \x1b", partition=2)
    letter_to(stream, b"{}", partition=2, code="schema", offset=1)
    with client_of(stream) as client:
        listed = client.get("/api/letters").json()
        assert {(kind["code"], kind["count"]) for kind in listed["kinds"]} == {("json", 1), ("schema", 1)}
        only = client.get("/api/letters?code=schema&hours=1").json()["letters"]
        assert [letter["letter"] for letter in only] == ["2-1"]
        letter = client.get("/api/letters/2-0").json()
        assert letter["pieces"] == [["not JSON ", [], None], ["\ufffd", [], "ESC"]]
        assert client.get("/api/letters/3-0").status_code == 502
        token = client.get("/api/session").json()["page_token"]
        headers = {"Origin": str(client.base_url), "X-EL4NER-Page": token}
        plan = client.post("/api/letters/plan", json={"letters": ["2-0"]}, headers=headers).json()
        assert (plan["letters"], plan["kinds"][0]["count"]) == (["2-0"], 1)
        assert stream.ends(Topic.DOCUMENTS) == 0
        sent = client.post("/api/letters/replay", json={"letters": ["2-0"]}, headers=headers).json()["sent"]
        assert [each["letter"] for each in sent] == ["2-0"]
    assert [record.value for record in stream.read(Topic.DOCUMENTS)] == [b"not JSON \x1b"]


def test_lag_is_what_a_stage_has_not_committed(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("extract").wait_ready()
    stream.produce_documents([{"id": f"d{number}", "text": "Berlin"} for number in range(8)])
    wait_until(lambda: sum(stream.committed("extract").values()) == 8, what="all is committed")
    worker.stop()
    stream.produce_documents([{"id": f"e{number}", "text": "Berlin"} for number in range(5)])
    with client_of(stream) as client:
        health = client.get("/api/health").json()
    assert health["lag_problem"] is None
    (lag,) = health["lags"]
    assert (lag["stage"], lag["members"]) == ("extract", 0)
    assert 1 <= lag["lag"] <= 5  # of partitions on which it has committed anything


def test_without_a_broker_or_a_topic_the_page_says_so(stream: Stream) -> None:
    with RunningPage(stream.settings) as page, asking(page) as client:
        lost = wait_until(lambda: (now := status(client))["broker"] == "lost" and now, what="it is said")
        assert "create the topics" in lost["detail"]
        stream.create_topics()
        wait_until(lambda: status(client)["broker"] == "following", what="the page follows")
