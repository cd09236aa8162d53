"""Requests that fail, by httpx's own mock transport, a socket that never answers, and a server of the standard library
behind TLS. (The engine itself is tested on a real model server.)"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from el4ner.config import ServerSettings
from el4ner.engines.served.http_transport import Ask, Line, Transport
from el4ner.errors import ConfigError, EngineAwayError, EngineError, EngineOutOfMemoryError
from tests.support.certificates import Authority

Handler = Callable[[httpx.Request], httpx.Response]
KEY = "kept secret"


class Clock:
    """Time passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@contextmanager
def transport(handler: Handler, clock: Clock | None = None, **more: Any) -> Iterator[Transport]:
    clock = clock or Clock()
    settings = ServerSettings(**{"urls": ("http://a", "http://b"), "api_key": KEY, **more})
    made = Transport(
        "m", settings, transport=httpx.MockTransport(handler), clock=clock, pause=clock.pause, chance=lambda: 0.5
    )
    try:
        yield made
    finally:
        made.close()


def ask(made: Transport, number: int = 0) -> Any:
    ((answer,),) = made.ask_all([[Ask("/x", lambda: {"n": number})]])
    return answer


def answers(*status: int, text: str = "{}", **headers: str) -> Handler:
    """One after another, the last for ever; an answer of 0 is none."""
    left = list(status)

    def handler(request: httpx.Request) -> httpx.Response:
        now = left.pop(0) if len(left) > 1 else left[0]
        if now == 0:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(now, text=text, headers={name.replace("_", "-"): one for name, one in headers.items()})

    return handler


def test_rows_are_answered_in_order_and_asked_in_turn() -> None:
    seen: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        number = int(httpx.Response(200, content=request.content).json()["n"])
        seen.append(number)
        return httpx.Response(200, json={"n": number})

    with transport(handler) as made:
        rows = [[Ask("/x", partial(dict, n=10 * row + place)) for place in range(3)] for row in range(20)]
        answered = made.ask_all(rows)
    assert [[one["n"] for one in row] for row in answered] == [
        [10 * row + place for place in range(3)] for row in range(20)
    ]
    for row in range(20):
        assert [number for number in seen if number // 10 == row] == [10 * row, 10 * row + 1, 10 * row + 2]


def test_the_key_is_sent_and_a_request_is_json() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["Content-Type"] == "application/json"
        return httpx.Response(200, json={})

    with transport(handler) as made:
        ask(made)


@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503, 504])
def test_another_server_is_asked_at_once(status: int) -> None:
    clock = Clock()
    hosts: list[str] = []
    first = answers(status)

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return first(request) if len(hosts) == 1 else httpx.Response(200, json={"ok": 1})

    with transport(handler, clock) as made:
        assert ask(made) == {"ok": 1}
        assert hosts == ["a", "b"]
        assert clock.pauses == []
        assert made.healthy == [False, True]


def test_one_server_is_asked_again_after_waits_that_double() -> None:
    clock = Clock()
    with transport(answers(0, 503, 0, 200), clock, urls=("http://a",)) as made:
        assert ask(made) == {}
    assert clock.pauses == pytest.approx([0.25, 0.5, 1.0])


def test_a_busy_server_is_left_alone_as_long_as_it_asks() -> None:
    clock = Clock()
    with transport(answers(429, 200, Retry_After="7"), clock, urls=("http://a",)) as made:
        ask(made)
    assert clock.pauses == pytest.approx([7.0])


@pytest.mark.parametrize("after", ["nan", "inf", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_an_odd_retry_after_is_none(after: str) -> None:
    clock = Clock()
    with transport(answers(429, 200, Retry_After=after), clock, urls=("http://a",)) as made:
        ask(made)
    assert clock.pauses == pytest.approx([0.25])


def test_after_the_last_try_the_engine_is_away() -> None:
    with transport(answers(503, text='{"error": {"message": "Loading  model"}}'), tries=3) as made:
        with pytest.raises(
            EngineAwayError, match=r"^m: no answer after 3 tries, the last from http://a: 503: Loading model$"
        ) as caught:
            ask(made)
        assert caught.value.transient
        assert KEY not in str(caught.value)


def test_requests_that_wait_for_a_server_that_is_away_do_not_fail_one_after_another() -> None:
    clock = Clock()
    tried: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        tried.append(1)
        raise httpx.ConnectError("refused", request=request)

    with (
        transport(handler, clock, urls=("http://a",), connections=4, tries=3) as made,
        pytest.raises(EngineAwayError),
    ):
        made.ask_all([[Ask("/x", dict)] for _ in range(40)])
    assert len(tried) <= 4 + 2


def test_a_server_that_refuses_is_not_asked_again() -> None:
    asked: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(400, json={"error": {"message": "bad\nrequest", "type": "x"}})

    with transport(handler) as made:
        with pytest.raises(EngineError, match=r"^m: a request was refused: http://a: 400: bad request$") as caught:
            ask(made)
        assert not caught.value.transient
        assert made.healthy == [True, True]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        # llama.cpp
        '{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (8 tokens)"}}',
        # vLLM
        '{"object":"error","message":"This model\'s maximum context length is 8 tokens.","code":400}',
    ],
)
def test_a_prompt_that_is_too_long_for_the_server(said: str) -> None:
    with transport(answers(400, text=said)) as made, pytest.raises(EngineError, match="takes too many tokens"):
        ask(made)


@pytest.mark.parametrize("status", [401, 403])
def test_another_key_is_named_as_the_setting_that_mends_it(status: int) -> None:
    with transport(answers(status, text=f"no {KEY}")) as made:
        with pytest.raises(EngineError, match=rf"^m: http://a answers {status}: set models.m.server.api_key") as caught:
            ask(made)
        assert KEY not in str(caught.value)
        with pytest.raises(EngineError, match="api_key"):
            made.get(0, "/props")


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_without_memory_asks_for_a_smaller_batch(status: int) -> None:
    with (
        transport(answers(status, text='{"error": "CUDA out of memory. Tried"}')) as made,
        pytest.raises(EngineOutOfMemoryError, match="out of memory"),
    ):
        ask(made)


@pytest.mark.parametrize("text", ["", "<html>", '{"a": ', "\x00"])
def test_an_answer_that_is_no_json_is_garbage(text: str) -> None:
    with transport(answers(200, text=text)) as made, pytest.raises(EngineError) as caught:
        ask(made)
    assert caught.value.code == "engine-garbage"


def test_what_is_wanted_of_an_answer_is_taken_from_it_at_once() -> None:
    with transport(answers(200, text='{"n": 3}')) as made:
        assert made.ask_all([[Ask("/x", dict, lambda answer: answer["n"])]]) == [[3]]


def test_an_answer_without_end_is_garbage() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=(b"[" * (1 << 20) for _ in range(1 << 10)))

    with transport(handler) as made, pytest.raises(EngineError, match="answers more than 64 MiB"):
        ask(made)


def test_after_one_refusal_no_other_request_of_the_call_is_sent() -> None:
    asked: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(400, text="no")

    with transport(handler, urls=("http://a",), connections=1) as made, pytest.raises(EngineError, match="refused"):
        made.ask_all([[Ask("/x", dict), Ask("/x", dict)] for _ in range(50)])
    assert len(asked) == 1


def test_a_line_stays_with_its_server_and_leaves_it_when_it_fails() -> None:
    hosts: list[str] = []
    dead: set[str] = set()

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(503 if request.url.host in dead else 200, json={})

    with transport(handler) as made:
        line = Line(hint=1)
        made.ask_all([[Ask("/x", dict, line=line)] * 3])
        assert hosts == ["b", "b", "b"]
        dead.add("b")
        made.ask_all([[Ask("/x", dict, line=line)] * 2])
        assert hosts[3:] == ["b", "a", "a"]


def test_a_server_that_was_away_is_checked_before_it_gets_work() -> None:
    clock = Clock()
    verdicts: list[str | None] = ["another model now", None]
    with transport(answers(0, 200), clock, urls=("http://a",)) as made:
        made.check_returned(lambda index: verdicts.pop(0))
        assert ask(made) == {}
    assert verdicts == []
    with transport(answers(0, 200), clock, urls=("http://a",), tries=2) as made:
        made.check_returned(lambda index: "another model now")
        with pytest.raises(EngineAwayError, match=r"the last from http://a: another model now$"):
            ask(made)


def test_pages_that_are_not_there_are_none_and_a_server_that_is_not_there_is_away() -> None:
    with transport(answers(404)) as made:
        assert made.get(0, "/props") is None
    with transport(answers(200, text="<html>")) as made:
        assert made.post(0, "/tokenize", {}) is None
    for status in (0, 503):
        with transport(answers(status)) as made, pytest.raises(EngineAwayError, match=r"^m: http://b "):
            made.get(1, "/props")


@pytest.mark.parametrize("url", ["10.0.0.5:8000", "ftp://a", "http://", "http://user:secret@a", "http://a:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^models.m.server.urls") as caught:
        Transport("m", ServerSettings(urls=(url,)))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_base_of_an_openai_client_is_an_address_as_well() -> None:
    with transport(answers(200), urls=("http://a:8000/v1/", "http://b/models/")) as made:
        assert list(made.urls) == ["http://a:8000", "http://b/models"]


def test_interrupting_wakes_requests_that_a_server_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        made = Transport("m", ServerSettings(urls=(url,), connections=2, request_seconds=300))
        accepted: list[socket.socket] = []

        def interrupt_when_asked() -> None:
            for _ in range(2):
                connection, _ = silent.accept()
                accepted.append(connection)
                connection.recv(1)
            made.interrupt()

        thread = threading.Thread(target=interrupt_when_asked)
        thread.start()
        with pytest.raises(EngineAwayError, match="interrupted"):
            made.ask_all([[Ask("/x", dict)] for _ in range(10)])
        with pytest.raises(EngineAwayError, match="interrupted"):
            ask(made)
        thread.join(10)
        made.close()
        made.close()
        for connection in accepted:
            connection.close()


class _Empty(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base class calls it so
        pass


def test_a_server_behind_tls_is_checked_against_the_certificates_that_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    other = Authority(tmp_path / "other")
    certificate = authority.issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_address[1]}"
        trusting = Transport("m", ServerSettings(urls=(url,), ca_file=authority.cafile))
        assert ask(trusting) == {}
        trusting.close()
        for ca_file in (other.cafile, None):
            doubting = Transport("m", ServerSettings(urls=(url,), ca_file=ca_file, tries=1))
            with pytest.raises(EngineAwayError, match="certificate"):
                ask(doubting)
            doubting.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(ConfigError, match=r"^models.m.server.ca_file: "):
        Transport("m", ServerSettings(urls=(url,), ca_file=tmp_path / "none.pem"))
