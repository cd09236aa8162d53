"""What the service bounds and survives: full queues, clients that leave or are slow, engines that fail, its end."""

from __future__ import annotations

import gc
import io
import logging
import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from el4ner.errors import ConfigError, EngineAwayError, EngineError
from tests.support.examples import examples
from tests.support.http_service import EngineGate, RunningService, service_settings
from workers.config import WorkerSettings
from workers.serve.service import ServiceCrashedError
from workers.telemetry.logs import configure_logging

TOKEN = "f1d2d2f924e986ac86fdf7b36c94bcdf"
UNASKED = {"method": {"repeats": "off"}}
"""So that every text is asked about, whatever was answered before."""


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EL4NER_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "service-cache"))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineGate]:
    made = EngineGate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def tag(service: RunningService, *texts: str, **options: Any) -> httpx.Response:
    with service.client() as client:
        return client.post("/v1/tag", json={"texts": list(texts)}, **options)


def until_in_flight(service: RunningService, texts: int) -> None:
    """Asks the probe: the service itself says when it has come so far."""
    with service.client() as client:
        for _ in range(5000):
            there = client.get("/livez").json()["stages"]["serve"]["in_flight"]
            if there == texts:
                return
    raise AssertionError(f"{there} texts are in flight, not {texts}")


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_says_when_to_come_back(gate: EngineGate, threads: ThreadPoolExecutor) -> None:
    limits = {**UNASKED, "serve": {"max_texts": 3, "max_waiting_texts": 4}}
    with RunningService(service_settings(limits)) as service:
        gate.open.clear()
        first = threads.submit(tag, service, "Ada met Bob.", "Bob met Eve.", "Eve met Ada.")
        until_in_flight(service, 3)
        refused = tag(service, "One too many.", "Two too many.")
        assert (refused.status_code, refused.json()["code"]) == (429, "queue-full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "serve.max_waiting_texts" in refused.json()["detail"]
        second = threads.submit(tag, service, "This one fits.")
        until_in_flight(service, 4)
        gate.open.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
        assert tag(service, "Now there is room.", "For two.").status_code == 200


def test_bodies_count_by_their_size_too(gate: EngineGate, threads: ThreadPoolExecutor) -> None:
    limits = {**UNASKED, "serve": {"max_request_kb": 900, "max_waiting_mb": 1}}
    with RunningService(service_settings(limits)) as service:
        gate.open.clear()
        first = threads.submit(tag, service, "Ada met Bob." + " " * 180_000, *[" " * 180_000] * 3)
        until_in_flight(service, 4)
        refused = tag(service, *[" " * 180_000] * 4)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue-full")
        assert "serve.max_waiting_mb" in refused.json()["detail"]
        gate.open.set()
        assert first.result().status_code == 200
        assert tag(service, "Ada met Bob.").status_code == 200


def test_requests_share_batches(gate: EngineGate, threads: ThreadPoolExecutor) -> None:
    with RunningService(service_settings(UNASKED)) as service:
        gate.open.clear()
        first = threads.submit(tag, service, "The first one holds the engine up.")
        until_in_flight(service, 1)
        assert gate.asked.wait(60)
        others = [threads.submit(tag, service, f"Request {number} met Bob.") for number in range(5)]
        until_in_flight(service, 6)
        gate.open.set()
        assert {future.result().status_code for future in [first, *others]} == {200}
        with service.client() as client:
            metrics = client.get("/metrics").text
        # The five came while the engine was at work: at most one of them slipped into the batch that waited for it.
        batches = re.search(r'el4ner_batch_documents_count\{stage="serve"\} (\d+)', metrics)
        assert batches is not None
        assert int(batches[1]) <= 3


def test_who_leaves_is_not_worked_for(
    gate: EngineGate, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    with RunningService(service_settings({**UNASKED, "worker": {"batch_documents": 1}})) as service:
        gate.open.clear()
        first = threads.submit(tag, service, "The first one holds the engine up.")
        until_in_flight(service, 1)
        # One more waits at the engine; the other three are in the queue.
        with socket.create_connection(("127.0.0.1", service.port)) as leaving:
            body = b'{"texts": ["a1", "a2", "a3", "a4"]}'
            head = b"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            leaving.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            until_in_flight(service, 5)
        until_in_flight(service, 2)
        gate.open.set()
        assert first.result().status_code == 200
        until_in_flight(service, 0)
        with service.client() as client:
            metrics = client.get("/metrics").text
        assert 'el4ner_http_requests_total{path="/v1/tag",status="499"} 1.0' in metrics
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_what_is_not_answered_in_time_is_given_up(gate: EngineGate) -> None:
    with RunningService(service_settings({**UNASKED, "serve": {"request_seconds": 0.05}})) as service:
        gate.open.clear()
        late = tag(service, "Ada met Bob.")
        assert (late.status_code, late.json()["code"]) == (504, "request-timeout")
        gate.open.set()
        until_in_flight(service, 0)


# --- who may ask ------------------------------------------------------------------------------------------------------


def test_a_token_is_demanded_of_all_but_probes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with RunningService(service_settings({"serve": {"token_file": file, "host": "0.0.0.0"}})) as service:
        with service.client() as client:
            for path in ("/v1/pools", "/openapi.json", "/metrics", "/nowhere"):
                refused = client.get(path)
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
                assert refused.headers["www-authenticate"].startswith("Bearer")
            for shown in ("x", TOKEN[:-1], TOKEN + "0", "\xff" * 32):
                header = {"Authorization": f"Bearer {shown}".encode("latin-1")}
                assert client.post("/v1/tag", json={"texts": ["a"]}, headers=header).status_code == 401
            assert client.post("/v1/tag", json={"texts": ["a"]}, auth=("u", TOKEN)).status_code == 401
            assert client.get("/readyz").status_code == 200
        with service.client(headers={"Authorization": f"bearer {TOKEN}", "Host": "ner.example"}) as client:
            assert client.post("/v1/tag", json={"texts": ["a"]}).status_code == 200
            document = client.get("/openapi.json").json()
            assert document["security"] == [{"token": []}]
            assert TOKEN not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"host": "0.0.0.0"}, "set token"),
        ({"host": "ner.example"}, "set token"),
        ({"token": "short"}, "at least 16 characters"),
        ({"token": "with a blank in it, and more"}, "openssl rand"),
        ({"token": TOKEN, "token_file": __file__}, "leave one of them out"),
        ({"max_texts": 30, "max_waiting_texts": 20}, "never be accepted"),
        ({"max_request_kb": 2048, "max_waiting_mb": 1}, "never be accepted"),
        ({"port": 70000}, "serve.port"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        service_settings({"serve": section})
    assert "with a blank" not in str(raised.value)


def test_a_token_file_is_checked_without_being_quoted(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two words\n")
    with (
        pytest.raises(ConfigError, match=r"serve\.token_file") as raised,
        RunningService(service_settings({"serve": {"token_file": file}})),
    ):
        pass
    assert "two words" not in str(raised.value)


def test_a_host_that_can_be_no_name_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"cannot listen on a\.\.b:0"),
        RunningService(service_settings({"serve": {"host": "a..b", "token": TOKEN}})),
    ):
        pass


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}"),
            RunningService(service_settings({"serve": {"port": port}})),
        ):
            pass


# --- clients that are slow, or too many -------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"POST /v1/tag HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    with (
        RunningService(service_settings({"serve": {"read_seconds": 0.05}})) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow,
    ):
        slow.sendall(sent)
        assert received(slow) == b""


def test_the_second_head_of_a_connection_has_the_same_bound() -> None:
    with (
        RunningService(service_settings({"serve": {"read_seconds": 0.05}})) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow,
    ):
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        slow.sendall(b"GET /livez HTT")
        received(slow)  # returns when the service has closed it


def test_a_body_that_does_not_come_is_answered() -> None:
    with (
        RunningService(service_settings({"serve": {"read_seconds": 0.05}})) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow,
    ):
        head = b"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        slow.sendall(head + b"Content-Length: 90\r\n\r\n{")
        answer = received(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"slow-body" in answer


@pytest.mark.parametrize("rest", [b"x", b"12345", b"12345GET /livez HTTP"], ids=["some", "all", "more"])
def test_the_rest_of_a_refused_body_does_not_keep_the_connection(rest: bytes) -> None:
    with (
        RunningService(service_settings({"serve": {"read_seconds": 0.05}})) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=25) as slow,
    ):
        slow.sendall(b"POST /v1/tag HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.1 400"
        slow.sendall(rest)
        received(slow)  # returns when the service has closed it


def test_a_request_after_the_rest_of_a_refused_body_has_its_own_time(
    gate: EngineGate, threads: ThreadPoolExecutor
) -> None:
    head = b"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    body = b'{"texts": ["Ada met Bob."]}'
    with (
        RunningService(service_settings({**UNASKED, "serve": {"read_seconds": 0.2}})) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection,
    ):
        gate.open.clear()
        connection.sendall(head % 5 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 415"
        connection.sendall(b"12345" + head % len(body) + b"Content-Type: application/json\r\nConnection: close\r\n\r\n")
        connection.sendall(body)
        until_in_flight(service, 1)
        # Another client's head is waited for as long: by then the first limit is over.
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as silent:
            received(silent)
        gate.open.set()
        assert b"HTTP/1.1 200 OK" in received(connection)


def test_what_is_no_http_after_a_refusal_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It takes no token."""
    with (
        RunningService(service_settings()) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as broken,
    ):
        broken.sendall(b"POST /v1/tag HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert broken.recv(12) == b"HTTP/1.1 400"
        broken.sendall(b"no chunk\r\n")
        received(broken)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_connections_have_a_bound() -> None:
    with RunningService(service_settings({"serve": {"max_connections": 2}})) as service:
        address = ("127.0.0.1", service.port)
        with socket.create_connection(address, 60) as one, socket.create_connection(address, 60) as two:
            for each in (one, two):
                each.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert each.recv(15) == b"HTTP/1.1 200 OK"
            with socket.create_connection(address, 60) as three:
                assert received(three) == b""


def received(connection: socket.socket) -> bytes:
    """All until the other end closes; a reset counts as that."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


# --- engines that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineError("boom"), "engine"), (ValueError("a bug about Poisonville"), "bug")],
    ids=["engine", "bug"],
)
def test_a_text_that_an_engine_fails_on_costs_only_itself(
    gate: EngineGate, threads: ThreadPoolExecutor, error: Exception, code: str
) -> None:
    gate.raises["Poisonville"] = error
    with RunningService(service_settings(UNASKED)) as service:
        gate.open.clear()
        texts = ["Ada met Bob.", "Bob lives in Poisonville.", "Eve met Ada."]
        requests: list[Future[httpx.Response]] = [threads.submit(tag, service, text) for text in texts]
        both = threads.submit(tag, service, "Carl saw Poisonville.", "Carl saw Bob.")
        until_in_flight(service, 5)
        gate.open.set()
        good, poison, other = (request.result() for request in requests)
        assert (good.status_code, poison.status_code, other.status_code) == (200, 500, 200)
        assert poison.json()["code"] == code
        documents = both.result().json()["documents"]
        assert [document["status"] for document in documents] == ["failed", "complete"]
        assert documents[0]["error"]["stage"] == "classify"


def test_an_engine_that_is_away_is_no_texts_fault(gate: EngineGate) -> None:
    gate.raises["Ada"] = EngineAwayError("no route to 10.0.0.9 for Ada")
    with RunningService(service_settings(UNASKED)) as service:
        away = tag(service, "Ada met Bob.", "Bob met Eve.")
        assert (away.status_code, away.json()["code"]) == (503, "engine-away")
        assert int(away.headers["retry-after"]) >= 1
        assert "10.0.0.9" not in away.text
        gate.raises.clear()
        assert tag(service, "Ada met Bob.").status_code == 200


def test_logs_never_hold_text(gate: EngineGate) -> None:
    """Of no failure, at the level that services run at."""
    gate.raises["Poisonville"] = ValueError("a bug about Poisonville")
    gate.raises["Sickbay"] = EngineError("cannot read Sickbay")
    log = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging(WorkerSettings(log_format="json"), stream=log)
    try:
        with RunningService(service_settings(UNASKED)) as service:
            tag(service, "Bob lives in Poisonville.", "Eve is in Sickbay.", "Mallory is well.")
            with service.client() as client:
                client.post("/v1/tag", content=b'{"texts": ["Mallory', headers={"Content-Type": "application/json"})
                client.post("/v1/tag", json={"texts": ["x"], "pool": "Mallory"})
                client.post("/v1/tag", json={"documents": [{"text": "x", "pool": "Mallory", "id": "Mallory"}]})
                client.get("/v1/Mallory?Mallory", headers={"User-Agent": "Mallory"})
                client.request("Mallory", "/v1/tag")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = log.getvalue()
    assert '"method": "_OTHER"' in lines
    assert '"code": "bug"' in lines
    assert '"error": "ValueError"' in lines
    assert lines.count('"event": "request"') == 5
    for word in ("Poisonville", "Sickbay", "Mallory"):
        assert word.lower() not in lines.lower()


def test_a_service_whose_engine_only_fails_ends(gate: EngineGate) -> None:
    gate.raises["met"] = EngineError("the device is lost")
    service = RunningService(service_settings({**UNASKED, "worker": {"max_failure_run": 3, "retries": 0}}))
    statuses = []
    with pytest.raises(ServiceCrashedError, match="3 documents in a row failed"), service:
        statuses += [tag(service, f"Ada {number} met Bob.").status_code for number in range(3)]
    assert statuses == [500, 500, 503]


def test_a_service_whose_engine_hangs_ends(gate: EngineGate) -> None:
    sections = {**UNASKED, "worker": {"batch_deadline_seconds": 0.05, "shutdown_seconds": 0.1}}
    service = RunningService(service_settings(sections))
    answers = []
    gate.open.clear()
    with pytest.raises(ServiceCrashedError, match="an engine has not answered"), service:
        answers.append(tag(service, "Ada met Bob."))
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "stopping")


# --- its end ----------------------------------------------------------------------------------------------------------


def test_what_was_accepted_is_answered_and_nothing_new_is_taken(gate: EngineGate, threads: ThreadPoolExecutor) -> None:
    with RunningService(service_settings(UNASKED)) as service, service.client() as client:
        gate.open.clear()
        accepted = [threads.submit(tag, service, f"Request {number} met Bob.") for number in range(3)]
        until_in_flight(service, 3)
        service.stop()
        for _ in range(5000):
            if (probe := client.get("/readyz")).status_code == 503:
                break
        assert "stopping" in probe.json()["stages"]["serve"]["problems"][0]
        late = client.post("/v1/tag", json={"texts": ["Too late."]})
        assert (late.status_code, late.json()["code"]) == (503, "stopping")
        assert int(late.headers["retry-after"]) >= 1
        gate.open.set()
        assert [request.result().status_code for request in accepted] == [200] * 3
        service.ended()


def test_a_body_that_is_on_its_way_when_the_service_stops_is_refused(
    gate: EngineGate, threads: ThreadPoolExecutor
) -> None:
    with (
        RunningService(service_settings(UNASKED)) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow,
    ):
        gate.open.clear()
        accepted = threads.submit(tag, service, "Ada met Bob.")
        until_in_flight(service, 1)
        head = b"POST /v1/tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        slow.sendall(head + b"Content-Length: 90\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.1 100"  # it reads the body
        service.stop()
        assert b"HTTP/1.1 503" in received(slow)
        gate.open.set()
        assert accepted.result().status_code == 200


def test_its_end_has_a_bound(gate: EngineGate, threads: ThreadPoolExecutor) -> None:
    with RunningService(service_settings({**UNASKED, "worker": {"shutdown_seconds": 0.1}})) as service:
        gate.open.clear()
        accepted = threads.submit(tag, service, "Ada met Bob.")
        until_in_flight(service, 1)
        service.stop()
        answer = accepted.result()
        assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
        gate.open.set()


# --- isolation, over many mixes ---------------------------------------------------------------------------------------

KINDS = st.sampled_from(["good", "poison", "long", "pool"])


@given(requests=st.lists(st.lists(KINDS, min_size=1, max_size=4), min_size=1, max_size=6))
@settings(deadline=None, max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_text_gets_what_it_would_get_alone(
    mixed: tuple[RunningService, EngineGate], threads: ThreadPoolExecutor, requests: list[list[str]]
) -> None:
    service, gate = mixed
    gate.open.clear()
    bodies = [{"documents": [item_of(kind) for kind in kinds]} for kinds in requests]

    def post(body: dict[str, Any]) -> httpx.Response:
        with service.client() as client:
            return client.post("/v1/tag", json=body)

    first = threads.submit(tag, service, "The first one holds the engine up.")
    until_in_flight(service, 1)
    answers = [threads.submit(post, body) for body in bodies]
    until_in_flight(service, 1 + sum(map(len, requests)))
    gate.open.set()
    assert first.result().status_code == 200
    for kinds, answer in zip(requests, answers, strict=True):
        documents = answer.result().json()["documents"]
        codes = [document["error"] and document["error"]["code"] for document in documents]
        assert codes == [CODES[kind] for kind in kinds]
        expected = 200 if "good" in kinds else 500 if "poison" in kinds else 422
        assert answer.result().status_code == expected


CODES = {"good": None, "poison": "engine", "long": "too-many-sentences", "pool": "unknown-pool"}


def item_of(kind: str) -> dict[str, str]:
    text = {"poison": "Bob lives in Poisonville.", "long": "Ada said no.\n\n" * 1001}.get(kind, "Ada met Bob in Rome.")
    return {"text": text, "pool": "nws"} if kind == "pool" else {"text": text}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, EngineGate]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("EL4NER_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "service-cache"))
    gate = EngineGate(patch)
    gate.raises["Poisonville"] = EngineError("boom")
    sections = {**UNASKED, "worker": {"batch_documents": 5, "max_failure_run": 10_000, "max_failure_share": 1.0}}
    with RunningService(service_settings(sections)) as service:
        yield service, gate
    patch.undo()
