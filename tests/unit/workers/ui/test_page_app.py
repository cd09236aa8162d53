"""Who may ask the page for what, what no other site can have done, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import orjson
import pytest

from el4ner.errors import ConfigError
from tests.unit.workers.ui.test_live_feed import COMPLETE, record
from workers.config import StreamSettings, load_stream_settings
from workers.tail import TailedDocument
from workers.ui import page_app as page_app_module
from workers.ui import page_lookups
from workers.ui.feed_records import FeedRecord
from workers.ui.followed_entities import FollowedEntities
from workers.ui.followed_topic import FollowedTopic
from workers.ui.group_lag import LagKeeper
from workers.ui.lessons import Lessons
from workers.ui.live_feed import LiveFeed
from workers.ui.page_app import page_app
from workers.ui.page_state import PageState
from workers.ui.review_queues import ReviewQueues
from workers.ui.taught_pools import TaughtPools
from workers.ui.tried_texts import TriedTexts
from workers.ui.visitors import Visitors
from workers.ui.worker_metrics import WorkerMetrics

READER, TEACHER = "r" * 20, "t" * 20
TOKENS = {"reader_token": READER, "teacher_token": TEACHER}
PROXY = {"proxy_user_header": "X-Forwarded-Email", "teachers": ["ann@example.org"]}
HERE = "http://localhost"
HOSTILE = "Ada <img> \u202eZork met Quor."
ADA = {"start": 0, "end": 3, "text": "Ada", "confidence": 0.4}


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def settings_of(**ui: Any) -> StreamSettings:
    overrides = {"ui": ui, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    return load_stream_settings(environ={}, overrides=overrides)


def service(request: httpx.Request) -> httpx.Response:
    """`el4ner serve`, as far as the page asks it."""
    assert request.headers.get("authorization") == f"Bearer {READER}"
    if request.url.path == "/v1/pools":
        pool = {"name": "news", "text_kind": "prose", "sentences": 9, "fingerprint": "f"}
        return httpx.Response(200, json={"default": "news", "pools": [{**pool, "types": []}]})
    (document,) = orjson.loads(request.content)["documents"]
    if document["text"] == "none":
        return httpx.Response(503, json={"detail": "the models are being loaded"})
    if document["text"] == "away":
        raise httpx.ConnectError("refused")
    return httpx.Response(200, json={"documents": [{**COMPLETE, "pool": document.get("pool", "news")}]})


def state_of(settings: StreamSettings, clock: Clock) -> PageState:
    pools = TaughtPools(settings, patience_seconds=0)
    reviews = ReviewQueues(settings, pools, Random(5))
    feed = LiveFeed(settings.ui, clock(), reviews)
    tried = TriedTexts(settings.ui, httpx.MockTransport(service))
    followed = FollowedTopic(settings.kafka, feed, clock)
    metrics, lags = WorkerMetrics(settings.ui.metrics_urls, clock()), LagKeeper(settings.kafka, clock)
    lessons, visitors = Lessons(settings, pools, clock), Visitors(settings.ui, clock=clock)
    entities = FollowedEntities(settings, clock)
    return PageState(settings, visitors, feed, followed, tried, metrics, lags, lessons, reviews, entities, clock=clock)


@asynccontextmanager
async def client_of(
    state: PageState, *, address: str = "127.0.0.1", base: str = HERE
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(page_app(state), client=(address, 5))
    async with httpx.AsyncClient(transport=transport, base_url=base) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def page_token(client: httpx.AsyncClient, **headers: str) -> dict[str, str]:
    """What our own page sends with a request that changes anything."""
    session = (await client.get("/api/session", headers=headers)).json()
    return {"Origin": HERE, "X-EL4NER-Page": session["page_token"], **headers}


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/session", "/api/nothing", "/api/trends", "/livez"])
async def test_every_answer_forbids_what_is_not_ours(clock: Clock, path: str) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        answer = await client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert answer.headers["server"] == "el4ner"


async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(clock: Clock) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        html = (await client.get("/")).text
        parts = [part.split('"')[0] for part in html.split('="/')[1:]]
        assert len(parts) >= 4
        for part in parts:
            assert (await client.get(f"/{part}")).status_code == 200, part
    assert "http" not in html.replace("http-equiv", "")
    assert "style=" not in html
    assert "<script>" not in html
    assert " on" not in html.replace(" on ", "")


@pytest.mark.parametrize("path", ["/static/../page_app.py", "/static/%2e%2e/page_app.py", "/static//etc/passwd"])
async def test_nothing_but_the_page_is_given_out(clock: Clock, path: str) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        assert (await client.get(path)).status_code == 404


# --- who may ask ------------------------------------------------------------------------------------------------------


async def test_without_tokens_only_this_machines_own_name_is_answered(clock: Clock) -> None:
    state = state_of(settings_of(), clock)
    for base, status in ((HERE, 200), ("http://127.0.0.1:8090", 200), ("http://evil.example", 400)):
        async with client_of(state, base=base) as client:
            answer = await client.get("/api/session")
            assert answer.status_code == status
    assert answer.json()["code"] == "host"


async def test_names_of_the_page_can_be_set(clock: Clock) -> None:
    state = state_of(settings_of(**TOKENS, hosts=["tags.example.org"]), clock)
    for base, status in (("http://tags.example.org:8090", 200), ("http://evil.example", 400), (HERE, 400)):
        async with client_of(state, base=base) as client:
            assert (await client.get("/")).status_code == status


async def test_a_token_is_demanded_where_there_is_one(clock: Clock) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock)) as client:
        for path in (
            "/api/session",
            "/api/events",
            "/api/trends",
            "/api/letters",
            "/api/mentions",
            "/api/pools",
            "/api/queue",
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            assert (await client.get(path, headers={"Authorization": "Bearer x"})).status_code == 401
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/static/app.js")).status_code == 200
        for token, role in ((READER, "reader"), (TEACHER, "teacher")):
            session = await client.get("/api/session", headers={"Authorization": f"Bearer {token}"})
            assert session.json()["role"] == role


async def test_a_session_is_begun_by_a_token_and_ends(clock: Clock) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock)) as client:
        wrong = await client.post("/api/login", json={"token": "x" * 20}, headers={"Origin": HERE})
        assert wrong.status_code == 401
        assert "set-cookie" not in wrong.headers
        right = await client.post("/api/login", json={"token": f" {READER} "}, headers={"Origin": HERE})
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert READER not in cookie
        assert (await client.get("/api/session")).json()["role"] == "reader"
        clock.now += 12 * 3600 + 1
        assert (await client.get("/api/session")).status_code == 401
        await client.post("/api/login", json={"token": TEACHER}, headers={"Origin": HERE})
        headers = await page_token(client)
        assert (await client.post("/api/logout", json={}, headers=headers)).status_code == 200
        assert (await client.get("/api/session")).status_code == 401


async def test_over_tls_the_cookie_is_for_tls_alone(clock: Clock) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock), base="https://page.example") as client:
        origin = {"Origin": "https://page.example"}
        answer = await client.post("/api/login", json={"token": READER}, headers=origin)
    assert "secure" in answer.headers["set-cookie"].lower()


async def test_users_come_from_the_proxy_and_from_nobody_else(clock: Clock) -> None:
    state = state_of(settings_of(host="0.0.0.0", **PROXY, proxy_addresses=["10.1.0.0/16"]), clock)
    ann, bob = {"X-Forwarded-Email": "ann@example.org"}, {"X-Forwarded-Email": "bob@example.org"}
    async with client_of(state, address="10.1.2.3") as client:
        assert (await client.get("/api/session", headers=ann)).json()["role"] == "teacher"
        assert (await client.get("/api/session", headers=bob)).json()["role"] == "reader"
        assert (await client.get("/api/session")).status_code == 401
        twice = httpx.Headers([*bob.items(), *ann.items()])
        assert (await client.get("/api/session", headers=twice)).status_code == 401
    async with client_of(state, address="10.2.0.1") as client:
        assert (await client.get("/api/session", headers=ann)).status_code == 401


@pytest.mark.parametrize(
    ("ui", "what"),
    [
        ({"host": "0.0.0.0"}, "reader_token or teacher_token"),
        ({"reader_token": "short"}, "at least 16"),
        ({**PROXY, **TOKENS}, "one of the two"),
        ({"teachers": ["ann"]}, "proxy_user_header"),
        ({**PROXY, "proxy_addresses": ["10.1.0.0/99"]}, "proxy_addresses"),
        ({"serve_url": "ftp://x"}, "serve_url"),
        ({"serve_url": "http://x:secret/"}, "serve_url"),
        ({"metrics_urls": ["http://[::1/metrics"]}, "metrics_urls"),
        ({"metrics_urls": ["http://x/me\ntrics"]}, "metrics_urls"),
        ({"metrics_urls": ["http://user:secret@x/metrics"]}, "metrics_urls"),
    ],
)
def test_settings_that_are_not_safe_are_refused(ui: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as raised:
        settings_of(**ui)
    assert "secret" not in str(raised.value)


# --- what changes anything --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-EL4NER-Page": "0" * 64},
        {"X-EL4NER-Page": ""},
    ],
)
async def test_no_other_site_has_anything_done(clock: Clock, wrong: dict[str, str]) -> None:
    async with client_of(state_of(settings_of(serve_url="http://serve", serve_token=READER), clock)) as client:
        right = {"Sec-Fetch-Site": "same-origin", **await page_token(client)}
        assert (await client.post("/api/try", json={"text": "x"}, headers=right)).status_code == 200
        for path in (
            "/api/try",
            "/api/lesson",
            "/api/letters/replay",
            "/api/letters/plan",
            "/api/queue/dismiss",
            "/api/logout",
        ):
            answer = await client.post(path, json={"text": "x"}, headers={**right, **wrong})
            assert answer.status_code == 403, path
            assert answer.json()["code"] in ("cross-site", "stale-page")


async def test_no_other_site_logs_anybody_in(clock: Clock) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock)) as client:
        headers = {"Origin": "http://evil.example"}
        assert (await client.post("/api/login", json={"token": READER}, headers=headers)).status_code == 403


async def test_one_sessions_page_token_is_of_no_use_in_another(clock: Clock) -> None:
    state = state_of(settings_of(**PROXY, serve_url="http://serve", serve_token=READER), clock)
    ann, bob = {"X-Forwarded-Email": "ann@example.org"}, {"X-Forwarded-Email": "bob@example.org"}
    async with client_of(state) as client:
        headers = {**await page_token(client, **ann), **bob}
        assert (await client.post("/api/try", json={"text": "x"}, headers=headers)).status_code == 403


async def test_a_program_that_shows_its_token_needs_no_page(clock: Clock) -> None:
    state = state_of(settings_of(**TOKENS, serve_url="http://serve", serve_token=READER), clock)
    async with client_of(state) as client:
        headers = {"Authorization": f"Bearer {READER}"}
        assert (await client.post("/api/try", json={"text": "x"}, headers=headers)).status_code == 200


async def test_a_reader_sends_no_letter_again(clock: Clock) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock)) as client:
        for path in ("/api/letters/plan", "/api/letters/replay"):
            headers = {"Authorization": f"Bearer {READER}"}
            answer = await client.post(path, json={"letters": ["0-1"]}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "needs-teacher")
            headers = {"Authorization": f"Bearer {TEACHER}"}
            assert (await client.post(path, json={"letters": ["0-1"]}, headers=headers)).status_code == 502


@pytest.mark.parametrize(
    "body", [{}, {"letters": []}, {"letters": ["x"]}, {"letters": "0-1"}, {"letters": ["0-1"] * 501}]
)
async def test_what_names_no_letters_is_refused(clock: Clock, body: Any) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        answer = await client.post("/api/letters/replay", json=body, headers=await page_token(client))
    assert answer.status_code == 422


async def test_bodies_are_json_and_bounded(clock: Clock) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        headers = await page_token(client)
        for content, kind, status in (
            (b"{}", "text/plain", 415),
            (b"{", "application/json", 400),
            (b"[]", "application/json", 400),
            (b" " * 600_000, "application/json", 413),
        ):
            answer = await client.post("/api/try", content=content, headers={**headers, "Content-Type": kind})
            assert answer.status_code == status


# --- what is shown ----------------------------------------------------------------------------------------------------


async def test_a_text_is_tried_by_the_service(clock: Clock) -> None:
    async with client_of(state_of(settings_of(serve_url="http://serve", serve_token=READER), clock)) as client:
        headers = await page_token(client)
        assert (await client.get("/api/pools")).json()["pools"][0]["name"] == "news"
        shown = (await client.post("/api/try", json={"text": "x", "pool": "logs"}, headers=headers)).json()
        assert [entity["type"] for entity in shown["entities"]] == ["person", "location"]
        assert shown["pool"] == "logs"
        for text, detail in (("none", "503: the models are being loaded"), ("away", "is `el4ner serve` running there")):
            problem = await client.post("/api/try", json={"text": text}, headers=headers)
            assert problem.status_code == 502
            assert detail in problem.json()["detail"]


async def test_without_a_service_nothing_is_tried(clock: Clock) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        assert (await client.get("/api/session")).json()["can_try"] is False
        problem = (await client.get("/api/pools")).json()
    assert (problem["code"], "ui.serve_url" in problem["detail"]) == ("no-service", True)


async def test_trends_and_the_documents_behind_them(clock: Clock) -> None:
    state = state_of(settings_of(), clock)
    state.feed.take(record(3), clock())
    async with client_of(state) as client:
        report = (await client.get("/api/trends?window=1h&type=location")).json()
        assert [(trend["name"], trend["count"]) for trend in report["most"]] == [("Zürich", 1)]
        documents = (await client.get("/api/mentions?type=location&name=Zürich")).json()["documents"]
        assert [document["place"] for document in documents] == ["0-3"]
        assert (await client.get("/api/trends?window=1y")).status_code == 422
        assert (await client.get("/api/mentions?type=location&name=Bern")).json() == {"documents": []}


async def test_events_come_until_the_service_stops(clock: Clock) -> None:
    state = state_of(settings_of(), clock)
    state.feed.take(record(1), clock())
    got: list[bytes] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        got.append(message.get("body", b""))
        if b"event: documents" in got[-1]:
            state.stopping.set()

    query = b"documents=yes&type=person"
    scope = {"type": "http", "method": "GET", "path": "/api/events", "query_string": query, "client": ("127.0.0.1", 1)}
    scope |= {"headers": [(b"host", b"localhost")], "root_path": "", "raw_path": b"/api/events", "scheme": "http"}
    await page_app(state)(scope, receive, send)
    events = b"".join(got).decode()
    assert '"broker":"connecting"' in events
    assert '"id":"d1"' in events
    assert state.feed.viewers == 0


async def test_what_to_look_at_first_is_shown_and_dismissed_by_teachers_alone(clock: Clock) -> None:
    state = state_of(settings_of(**TOKENS), clock)
    reader, teacher = ({"Authorization": f"Bearer {token}"} for token in (READER, TEACHER))
    async with client_of(state) as client:

        async def listed(**query: str) -> Any:
            return (await client.get("/api/queue", params=query, headers=reader)).json()

        nothing = await listed()
        assert (nothing["pool"], nothing["sentences"], nothing["problem"]) == (None, [], None)
        await state.reviews.open()
        state.feed.take(record(7, text=HOSTILE, entities=[{**COMPLETE["entities"][0], **ADA}]), clock())
        for _ in range(state.reviews.begin_tick()):
            state.reviews.value_next()
        shown = await listed()
        assert (shown["pools"], shown["pool"], shown["waiting"]) == (["news", "logs"], "news", 1)
        assert (shown["documents"], shown["valued"]) == (1, 1)
        (sentence,) = shown["sentences"]
        assert (sentence["id"], sentence["place"], sentence["start"], sentence["timestamp"]) == ("d7", "0-7", 0, 5)
        # Text as text: what a screen would obey has its name.
        assert ["\ufffd", [], "U+202E"] in sentence["pieces"]
        assert sentence["entities"][0]["text"] == "Ada"
        assert "<img>" in "".join(text for text, _, _ in sentence["pieces"])
        assert {"zork", "quor"} <= set(sentence["new_words"])
        assert (await listed(pool="logs"))["sentences"] == []
        unknown = await client.get("/api/queue?pool=x", headers=reader)
        assert (unknown.status_code, "one of news, logs" in unknown.json()["detail"]) == (422, True)

        body = {"pool": "news", "place": "0-7", "start": 0}
        refused = await client.post("/api/queue/dismiss", json=body, headers=reader)
        assert (refused.status_code, refused.json()["code"]) == (403, "needs-teacher")
        for wrong in ({"start": "0"}, {"start": None}, {"place": "x"}):
            answer = await client.post("/api/queue/dismiss", json={**body, **wrong}, headers=teacher)
            assert answer.status_code == 422
        assert (await client.post("/api/queue/dismiss", json=body, headers=teacher)).json() == {"dismissed": True}
        assert (await client.post("/api/queue/dismiss", json=body, headers=teacher)).json() == {"dismissed": False}
        assert (await listed())["sentences"] == []


# --- what is odd ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ['settings={"theme": "dark"}; ', "a b=c; ", "[x]; ", 'y="z; '])
async def test_cookies_of_other_services_of_the_host_end_no_session(clock: Clock, others: str) -> None:
    async with client_of(state_of(settings_of(**TOKENS), clock)) as client:
        answer = await client.post("/api/login", json={"token": READER}, headers={"Origin": HERE})
        session = answer.cookies["el4ner-session"]
        client.cookies.clear()
        answer = await client.get("/api/session", headers={"Cookie": f"{others}el4ner-session={session}"})
    assert answer.json()["role"] == "reader"


async def test_events_end_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hours(Clock):
        """Each time it is asked, five more have passed."""

        def __call__(self) -> float:
            self.now += 5 * 3600
            return self.now

    monkeypatch.setattr(page_app_module, "_TICK_SECONDS", 0)
    monkeypatch.setattr(page_app_module, "_STATUS_SECONDS", 0)
    async with client_of(state_of(settings_of(**TOKENS), Hours())) as client:
        assert (await client.post("/api/login", json={"token": READER}, headers={"Origin": HERE})).status_code == 200
        answer = await client.get("/api/events?documents=no")  # which would go on for ever
    assert answer.status_code == 200


async def test_a_proxy_names_people_in_utf_8(clock: Clock) -> None:
    state = state_of(settings_of(proxy_user_header="X-User", teachers=["zoë à"]), clock)
    async with client_of(state) as client:
        answer = await client.get("/api/session", headers={"X-User": "zoë à".encode()})
    assert (answer.json()["name"], answer.json()["role"]) == ("zoë à", "teacher")


async def test_an_origin_that_is_none_is_another_site(clock: Clock) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        headers = await page_token(client)
        for origin in ("http://[::1", "null", "", "http://localhost@evil.example", "http://localhost:1"):
            answer = await client.post("/api/try", json={"text": "x"}, headers={**headers, "Origin": origin})
            assert (answer.status_code, answer.json()["code"]) == (403, "cross-site"), origin


async def test_a_bug_before_a_request_is_looked_at_is_answered_and_not_quoted(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(settings_of(), clock)

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("of a text")

    monkeypatch.setattr(state.visitors, "who", bug)
    async with client_of(state) as client:
        answer = await client.get("/api/session")
    assert (answer.status_code, answer.json()["code"]) == (500, "bug")
    assert "content-security-policy" in answer.headers
    assert "of a text" not in caplog.text


async def test_a_number_that_is_too_long_is_named(clock: Clock) -> None:
    async with client_of(state_of(settings_of(), clock)) as client:
        for hours in ("1" * 5_000, "0", "-1", "x"):
            assert (await client.get("/api/letters", params={"hours": hours})).status_code == 422


@pytest.mark.parametrize("answer", [[], {}, {"documents": []}, {"documents": [1]}, {"default": "x", "pools": [1]}])
async def test_an_address_that_is_no_service_of_ours_is_said(clock: Clock, answer: Any) -> None:
    state = state_of(settings_of(serve_url="http://serve"), clock)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    state.tried = TriedTexts(state.settings.ui, transport)
    async with client_of(state) as client:
        headers = await page_token(client)
        tried = await client.post("/api/try", json={"text": "x"}, headers=headers)
        assert (tried.status_code, tried.json()["code"]) == (502, "service")
        assert (await client.get("/api/pools")).status_code == 502


async def test_a_document_that_was_deleted_is_not_shown_because_the_broker_still_has_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(settings_of(keep_documents=1), clock)
    first = record(1)
    for each in (first, record(2)):
        state.feed.take(each, clock())
    monkeypatch.setattr(
        page_lookups, "tagged_at", lambda settings, places: [TailedDocument(COMPLETE | {"id": "d1"}, 0, 1, 5, None)]
    )
    entity = COMPLETE["entities"][0]
    asked = {"type": entity["type"], "name": entity["text"]}
    async with client_of(state) as client:

        async def shown() -> list[str]:
            return [each["id"] for each in (await client.get("/api/mentions", params=asked)).json()["documents"]]

        assert set(await shown()) == {"d1", "d2"}
        state.feed.take(FeedRecord(0, 3, 5, b"d1", None), clock())
        assert await shown() == ["d2"]
        assert (await client.get("/api/lesson?place=0-1")).status_code == 404
