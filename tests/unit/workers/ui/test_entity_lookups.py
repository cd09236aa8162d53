"""Entities on the page: who may see and decide what, what is shown, and whether the worker has carried it out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from el4ner.canonical.decisions import EntityDecision
from el4ner.canonical.names import entity_id
from tests.support.followed_topic import FollowedTopic
from tests.unit.workers.ui.test_held_entities import ADA, KING, LONDON, merged_value, value_of
from tests.unit.workers.ui.test_live_feed import record as document_record
from tests.unit.workers.ui.test_page_app import READER, TEACHER, TOKENS, Clock, client_of, page_token, state_of
from workers.config import StreamSettings, load_stream_settings
from workers.entities.entity_messages import decision_to_json
from workers.entities.entity_topic import EntitiesError, decided_at
from workers.ui import followed_entities, following_thread
from workers.ui.page_state import PageState, on_a_thread

COUNTESS = entity_id("person", "the countess")
HOSTILE = value_of("person\u202e", "<img src=x onerror=alert(1)>\u202egnp.", 1, aliases=("\x1b[31mred", "<b>bold</b>"))


@dataclass
class Message:
    topic: str
    key: bytes
    value: bytes | None


def entity(value: Any) -> Message:
    return Message("entities", value["id"].encode(), orjson.dumps(value))


def decided(decision: EntityDecision) -> Message:
    return Message("entity-decisions", decision.id.encode(), orjson.dumps(decision_to_json(decision)))


class Topics(FollowedTopic):
    """Both topics, and what is decided: it comes back."""

    def __init__(self, *begin: Message) -> None:
        super().__init__(list(begin), away="no Kafka broker answers")  # type: ignore[arg-type]
        self.decisions: list[EntityDecision] = []
        self.refused = False

    def come(self, *messages: Message) -> None:
        self.coming.put(list(messages))  # type: ignore[arg-type]

    def decide(
        self, _kafka: Any, subject: tuple[str, str], into: str | None, *, by: str, before: Any, now_ms: int, random: Any
    ) -> EntityDecision:
        if self.refused:
            raise EntitiesError("the decision was not delivered")
        at_ms = decided_at(before, *subject, now_ms=now_ms)
        action: Any = "split" if into is None else "merge"
        decision = EntityDecision(random(16).hex(), at_ms, action, *subject, into, by)
        self.decisions.append(decision)
        self.come(decided(decision))
        return decision


@contextmanager
def following(topics: Topics, monkeypatch: pytest.MonkeyPatch, **ui: Any) -> Iterator[PageState]:
    monkeypatch.setattr(followed_entities, "followed_records", lambda kafka, *_, **__: topics.followed(kafka))
    monkeypatch.setattr(followed_entities, "decisions_until_now", lambda _: list(topics.decisions))
    monkeypatch.setattr(followed_entities, "decide", topics.decide)
    monkeypatch.setattr(following_thread, "_RETRY_SECONDS", 0.01)
    state = state_of(settings_of(**ui), Clock())
    state.entities.start()
    try:
        until(lambda: state.entities.is_read or state.entities.problem)
        yield state
    finally:
        state.entities.close(60)


def settings_of(**ui: Any) -> StreamSettings:
    overrides = {"ui": ui, "kafka": {"bootstrap_servers": "127.0.0.1:1"}, "entities": {"enabled": True}}
    return load_stream_settings(environ={}, overrides=overrides)


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def held(state: PageState, value: Any) -> bool:
    return state.entities.look(lambda entities, _: entities.get(value["id"]) == value)


async def shown(client: Any, value: Any) -> Any:
    return (await client.get(f"/api/entities/{value['id']}")).json()


async def test_the_list_is_searched_sorted_and_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    with following(Topics(*map(entity, (ADA, KING, LONDON))), monkeypatch) as state:
        async with client_of(state) as client:
            assert (await client.get("/api/session")).json()["has_entities"] is True
            answer = (await client.get("/api/entities", params={"like": "love", "type": "person"})).json()
            (row,) = answer["entities"]
            assert (row["name"], row["mentions"], row["spellings"]) == ("Ada Lovelace", 3, ["Lovelace"])
            assert row["last_seen"] == 1_795_766_400_000
            assert (answer["matched"], answer["all"], answer["types"]) == (1, 3, ["person", "location"])
            assert (answer["is_read"], answer["problem"]) == (True, None)
            later = (await client.get("/api/entities?order=last-seen&start=1")).json()
            assert len(later["entities"]) == 2
            assert "Ada King" not in {each["name"] for each in later["entities"]}
            for wrong in ("order=x", "start=-1", "start=10001", "start=²", f"like={'x' * 201}"):
                assert (await client.get(f"/api/entities?{wrong}")).status_code == 422, wrong
            assert (await client.get("/api/entities/nothing")).json()["code"] == "no-entity"


async def test_where_entities_are_off_nothing_is_read_and_the_page_says_so() -> None:
    state = state_of(
        load_stream_settings(environ={}, overrides={"kafka": {"bootstrap_servers": "127.0.0.1:1"}}), Clock()
    )
    state.entities.start()
    state.entities.close(1)
    async with client_of(state) as client:
        assert (await client.get("/api/session")).json()["has_entities"] is False
        for path in ("/api/entities", "/api/entities/x", "/api/entities/x/documents"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "no-entities")
        body = {"kept": "a", "other": "b"}
        answer = await client.post("/api/entities/merge", json=body, headers=await page_token(client))
        assert answer.status_code == 404


async def test_readers_see_and_teachers_decide_and_their_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(*map(entity, (ADA, KING)))
    reader, teacher = ({"Authorization": f"Bearer {token}"} for token in (READER, TEACHER))
    merge = {"kept": ADA["id"], "other": KING["id"]}
    split = {"entity": ADA["id"], "name": KING["id"]}
    with following(topics, monkeypatch, **TOKENS) as state:
        async with client_of(state) as client:
            for path in ("/api/entities", f"/api/entities/{ADA['id']}", f"/api/entities/{ADA['id']}/documents"):
                assert (await client.get(path)).status_code == 401
                assert (await client.get(path, headers=reader)).status_code == 200
            for path, body in (("/api/entities/merge", merge), ("/api/entities/split", split)):
                refused = await client.post(path, json=body, headers=reader)
                assert (refused.status_code, refused.json()["code"]) == (403, "needs-teacher")
            assert topics.decisions == []
            taken = await client.post("/api/entities/merge", json=merge, headers=teacher)
            (decision,) = topics.decisions
            assert taken.json() == {"decision": decision.id, "id": KING["id"], "into_id": ADA["id"]}
    assert (decision.action, decision.name, decision.into, decision.by) == (
        "merge",
        "ada king",
        "ada lovelace",
        "teacher",
    )


async def test_no_other_site_merges_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(*map(entity, (ADA, KING)))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = {**await page_token(client), "Origin": "http://evil.example"}
            for path in ("merge", "split"):
                body = {"kept": ADA["id"], "other": KING["id"], "entity": ADA["id"], "name": KING["id"]}
                answer = await client.post(f"/api/entities/{path}", json=body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "cross-site")
    assert topics.decisions == []


async def test_a_decision_waits_for_the_worker_and_its_opposite_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(*map(entity, (ADA, KING, LONDON)))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = await page_token(client)
            body = {"kept": ADA["id"], "other": KING["id"]}
            await client.post("/api/entities/merge", json=body, headers=headers)
            for each in (ADA, KING):
                waiting = await shown(client, each)
                assert waiting["is_waiting"]
                assert [(one["action"], one["by"], one["state"]) for one in waiting["decisions"]] == [
                    ("merge", "local", "waiting")
                ]
            assert not (await shown(client, LONDON))["is_waiting"]

            whole = value_of("person", "Ada Lovelace", 12, "ada king", aliases=("Ada King",))
            topics.come(entity(whole), entity(merged_value("person", "ada king", ADA["id"])))
            until(lambda: held(state, whole))
            done = await shown(client, KING)
            assert (done["id"], done["asked"], done["is_waiting"], done["mentions"]) == (
                ADA["id"],
                "ada king",
                False,
                12,
            )
            assert done["names"] == [{"id": KING["id"], "name": "ada king", "why": "decision"}]

            # Once it is split off again the merge is over, and the two are asked about apart.
            body = {"entity": ADA["id"], "name": KING["id"]}
            await client.post("/api/entities/split", json=body, headers=headers)
            assert (await shown(client, ADA))["is_waiting"]
            topics.come(entity(ADA), entity(KING))
            until(lambda: held(state, KING))
            apart = await shown(client, ADA)
            assert [(one["action"], one["state"]) for one in apart["decisions"]] == [
                ("split", "done"),
                ("merge", "over"),
            ]
            assert (apart["is_waiting"], apart["names"]) == (False, [])
    # Both at one moment of the clock: the later one counts all the same.
    assert topics.decisions[1].at_ms > topics.decisions[0].at_ms


async def test_what_cannot_be_is_refused_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(*map(entity, (ADA, KING, LONDON)))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = await page_token(client)

            async def refusal(action: str, **body: Any) -> tuple[int, str]:
                answer = await client.post(f"/api/entities/{action}", json=body, headers=headers)
                return answer.status_code, answer.json()["detail"]

            status, detail = await refusal("merge", kept=ADA["id"], other=LONDON["id"])
            assert (status, "two types are never one" in detail) == (422, True)
            status, detail = await refusal("merge", kept=ADA["id"], other=ADA["id"])
            assert (status, "one entity already" in detail) == (422, True)
            status, detail = await refusal("split", entity=ADA["id"], name=KING["id"])
            assert (status, "is no name that was joined" in detail) == (422, True)
            for body in ({}, {"kept": ADA["id"]}, {"kept": 1, "other": 2}, {"kept": "", "other": "x"}):
                assert (await refusal("merge", **body))[0] == 422
            topics.refused = True
            status, detail = await refusal("merge", kept=ADA["id"], other=KING["id"])
            assert (status, detail) == (502, "the decision was not delivered")
    assert topics.decisions == []


async def test_a_name_that_no_document_has_any_more_can_still_be_split_off(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = EntityDecision("1", 1, "merge", "person", "the countess", "ada lovelace", "ann")
    topics = Topics(entity(ADA), decided(merge))
    topics.decisions.append(merge)
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            view = await shown(client, ADA)
            assert [(each["name"], each["why"]) for each in view["names"]] == [("the countess", "decision")]
            assert [(each["by"], each["state"]) for each in view["decisions"]] == [("ann", "done")]
            body = {"entity": ADA["id"], "name": COUNTESS}
            answer = await client.post("/api/entities/split", json=body, headers=await page_token(client))
            assert (answer.json()["id"], answer.json()["into_id"]) == (COUNTESS, None)


async def test_of_merges_in_a_ring_the_one_that_does_not_hold_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring = [
        EntityDecision("1", 1, "merge", "person", "ada king", "ada lovelace"),
        EntityDecision("2", 2, "merge", "person", "ada lovelace", "ada king"),
    ]
    whole = value_of("person", "Ada King", 12, "ada lovelace")
    messages = [entity(whole), entity(merged_value("person", "ada lovelace", KING["id"])), *map(decided, ring)]
    with following(Topics(*messages), monkeypatch) as state:
        async with client_of(state) as client:
            view = await shown(client, KING)
    assert not view["is_waiting"]
    assert [(each["into"], each["state"]) for each in view["decisions"]] == [
        ("ada king", "done"),
        ("ada lovelace", "over"),
    ]


async def test_who_decided_is_told_what_became_of_that_though_somebody_else_decided_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bob = value_of("person", "Bob", 1)
    topics = Topics(*map(entity, (ADA, KING, bob)))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = await page_token(client)

            async def became(answer: Any, of: Any) -> str | None:
                asked = await client.get(f"/api/entities/{of['id']}", params={"decision": answer.json()["decision"]})
                became: str | None = asked.json()["decision_state"]
                return became

            first, second = [
                await client.post(
                    "/api/entities/merge", json={"kept": kept["id"], "other": KING["id"]}, headers=headers
                )
                for kept in (ADA, bob)
            ]
            assert (await became(first, ADA), await became(second, bob)) == ("over", "waiting")
            topics.come(entity(merged_value("person", "ada king", bob["id"])))
            until(lambda: not held(state, KING))
            assert (await became(first, ADA), await became(second, bob)) == ("over", "done")
            # What the page has not read is not said to be done.
            unknown = (await client.get(f"/api/entities/{ADA['id']}?decision=abc")).json()
            assert unknown["decision_state"] is None


async def test_nothing_else_is_merged_than_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bob = value_of("person", "Bob", 1)
    whole = value_of("person", "Ada Lovelace", 12, "ada king")
    topics = Topics(entity(whole), entity(merged_value("person", "ada king", ADA["id"])), entity(bob))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = await page_token(client)
            # Somebody who still sees Ada King by herself would make Ada Lovelace a part of Bob.
            for body in ({"kept": bob["id"], "other": KING["id"]}, {"kept": KING["id"], "other": bob["id"]}):
                answer = await client.post("/api/entities/merge", json=body, headers=headers)
                assert (answer.status_code, "is part of 'Ada Lovelace' now" in answer.json()["detail"]) == (422, True)
    assert topics.decisions == []


async def test_two_people_who_merge_the_same_two_at_once_make_no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(*map(entity, (ADA, KING)))
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            headers = await page_token(client)
            for kept, other, status in ((ADA, KING, 200), (KING, ADA, 422), (ADA, KING, 422)):
                body = {"kept": kept["id"], "other": other["id"]}
                answer = await client.post("/api/entities/merge", json=body, headers=headers)
                assert answer.status_code == status, answer.text
            assert "decided already" in answer.json()["detail"]
    assert len(topics.decisions) == 1


async def test_an_entity_that_the_page_may_not_hold_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    merges = [
        EntityDecision("1", 1, "merge", "person", "ada king", "ada lovelace"),
        EntityDecision("2", 2, "merge", "person", "ada lovelace", "bob"),
        EntityDecision("3", 3, "split", "person", "ada lovelace"),
    ]
    # Ada Lovelace was forgotten.
    topics = Topics(
        entity(ADA), entity(merged_value("person", "ada king", ADA["id"])), entity(value_of("person", "Bob", 1)),
        *map(decided, merges),
    )  # fmt: skip
    with following(topics, monkeypatch, keep_entities=2) as state:
        async with client_of(state) as client:
            assert (await client.get("/api/entities")).json()["has_forgotten"]
            answer = await client.get(f"/api/entities/{entity_id('person', 'bob')}?decision=1")
            assert (answer.json()["decision_state"], answer.json()["is_waiting"]) == ("done", False)


async def test_who_looks_something_up_waits_for_nobody_who_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    topics, goes_on = Topics(*map(entity, (ADA, KING))), threading.Event()
    with following(topics, monkeypatch) as state:

        def slowly(*_: Any, **__: Any) -> EntityDecision:
            assert goes_on.wait(60)
            raise EntitiesError("the broker is away")

        monkeypatch.setattr(followed_entities, "decide", slowly)
        async with client_of(state) as client:
            headers, body = await page_token(client), {"kept": ADA["id"], "other": KING["id"]}
            merging = [
                asyncio.create_task(client.post("/api/entities/merge", json=body, headers=headers)) for _ in range(8)
            ]
            try:
                await asyncio.sleep(0)
                assert (await client.get("/api/entities")).json()["matched"] == 2
                await asyncio.wait_for(on_a_thread(state, lambda: None), 30)
            finally:
                goes_on.set()
                assert {answer.status_code for answer in await asyncio.gather(*merging)} == {502}


async def test_hostile_names_are_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    with following(Topics(entity(HOSTILE)), monkeypatch) as state:
        async with client_of(state) as client:
            answer = await client.get("/api/entities?like=onerror")
            (row,) = answer.json()["entities"]
            assert (row["type"], row["name"]) == ("person\\u202e", "<img src=x onerror=alert(1)>\\u202egnp.")
            assert row["spellings"] == ["\\x1b[31mred", "<b>bold</b>"]
            view = await client.get(f"/api/entities/{HOSTILE['id']}")
            for text in (answer.text, view.text):
                assert not {"\u202e", "\x1b"} & set(text)
            # A type is chosen as it is shown.
            assert (await client.get("/api/entities", params={"type": row["type"]})).json()["matched"] == 1


async def test_documents_that_mention_it_are_found_by_its_id_where_they_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = value_of("location", "Zürich", 2, aliases=("Zurich",))
    with following(Topics(entity(ada)), monkeypatch) as state:
        (_, plain) = orjson.loads(document_record(0).value or b"")["entities"]
        plain.pop("entity_id", None)

        def with_id(name: str | None) -> Any:
            return [plain if name is None else {**plain, "entity_id": name}]

        state.feed.take(document_record(1, entities=with_id(None)), 0)
        state.feed.take(document_record(2, entities=with_id(ada["id"])), 0)
        state.feed.take(document_record(3, entities=with_id(LONDON["id"])), 0)
        async with client_of(state) as client:
            found = (await client.get(f"/api/entities/{ada['id']}/documents")).json()["documents"]
    # The third one means another entity that is spelt alike.
    assert {each["id"] for each in found} == {"d1", "d2"}
    assert [each["wanted"] for each in found] == [[0], [0]]


async def test_nothing_is_decided_before_the_topics_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics()
    topics.begins = []
    with following(topics, monkeypatch) as state:
        async with client_of(state) as client:
            listed = (await client.get("/api/entities")).json()
            assert (listed["is_read"], listed["problem"]) == (False, "no Kafka broker answers")
            body = {"kept": ADA["id"], "other": KING["id"]}
            answer = await client.post("/api/entities/merge", json=body, headers=await page_token(client))
            assert (answer.status_code, answer.json()["detail"]) == (503, "no Kafka broker answers")


async def test_a_topic_that_was_made_anew_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(entity(ADA))
    topics.begins.append([entity(KING)])  # type: ignore[list-item]
    with following(topics, monkeypatch) as state:
        topics.coming.put(EntitiesError("an offset is out of range"))
        until(lambda: held(state, KING))
        assert not held(state, ADA)
