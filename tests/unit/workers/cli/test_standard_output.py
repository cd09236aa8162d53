"""Standard output has results and nothing else, whatever an engine logs and whatever its library prints.

Each command runs in a process of its own, since what is tested is the process's streams: nothing is captured in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.cpu_exllamav2 import SHAPE
from tests.support.cpu_gpu_command import PRINTED
from tests.support.tiny_models import byte_tokenizer, tiny_llama

TEXTS = ("Ada Lovelace met Charles Babbage.", "In Paris it rained.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama", max_position_embeddings=16_384, **SHAPE)


def configuration(folder: Path, model: str, method: str) -> str:
    return (
        '[ensemble]\nmembers = ["m"]\nverifier = "m"\n'
        f"[method]\n{method}\n"
        f'[retrieval]\nkind = "none"\n[models.m]\nsource = "{folder}"\n{model}\n'
    )


def tag(program: str, configured: str, tmp_path: Path, *options: str) -> str:
    """Standard error. Standard output is a JSON object for each text."""
    file = tmp_path / "el4ner.toml"
    file.write_text(configured)
    done = subprocess.run(
        [sys.executable, "-m", program, *options, "tag", "--lines", "--format", "json", "--config", str(file)],
        input="".join(f"{text}\n" for text in TEXTS),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "EL4NER_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [document["text"] for document in documents] == list(TEXTS)
    return done.stderr


def records(errors: str) -> list[dict[str, Any]]:
    """Log records that were written as JSON lines; a line of progress is none."""
    return [json.loads(line) for line in errors.splitlines() if line.startswith("{")]


class Served(BaseHTTPRequestHandler):
    """A TabbyAPI that is busy at every third request for an answer."""

    tokenizer = byte_tokenizer()
    requests = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        self._answer(200, {"id": "m1", "parameters": {"max_seq_len": 8192}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/token/encode":
            self._answer(200, {"tokens": self.tokenizer.encode(body["text"], add_special_tokens=False)})
            return
        with self.lock:
            Served.requests += 1
            busy = Served.requests % 3 == 0
        choice = {"text": " none", "finish_reason": "stop"}
        self._answer(503 if busy else 200, {"choices": [choice], "usage": {"completion_tokens": 2}})

    def _answer(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_a_server_that_is_away_and_one_that_is_busy_are_told_on_standard_error(folder: Path, tmp_path: Path) -> None:
    with served() as url, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: whoever connects is refused
        away = f"http://127.0.0.1:{unused.getsockname()[1]}"
        model = f'engine = "server"\n[models.m.server]\nkind = "tabbyapi"\nurls = ["{away}", "{url}"]'
        errors = tag("workers.cli", configuration(folder, model, 'mode = "paper"'), tmp_path, "--log-level=info")
    lines = [line for line in errors.splitlines() if "engine=m" in line]
    for level, event, module, field in (
        ("warning", "server-away", "probing", f"url={away}"),
        ("info", "server-probed", "served_engine", "kind=tabbyapi"),
        ("warning", "server-failed", "http_transport", "503"),
    ):
        words = (f"[{level}", event, f"[el4ner.engines.served.{module}]", field)
        assert any(all(word in line for word in words) for line in lines), (words, errors)


@pytest.mark.slow
def test_an_exllama_engine_that_fails_and_prints_is_heard_on_standard_error(folder: Path, tmp_path: Path) -> None:
    model = 'engine = "exllamav2"\n[models.m.exllama]\ncache_tokens = 32768'
    configured = configuration(folder, model, 'mode = "scored"\nproposals = ["chunks", "models"]')
    errors = tag("tests.support.cpu_gpu_command", configured, tmp_path, "--log-level=info", "--log-format=json")
    warned = [record for record in records(errors) if record["level"] == "warning"]
    for module, count in (("writing", "answers"), ("shared_prefix", "rows")):
        memory, restarted = (record for record in warned if record["logger"] == f"el4ner.engines.exllama.{module}")
        assert (memory["event"], memory["engine"], memory[count]) == ("engine-memory", "m", 32)
        assert (restarted["event"], restarted["error"]) == ("engine-restarted", "CUDA error: launch failed")
    logged = {record["event"]: record for record in records(errors)}
    assert logged["engine-placed"]["logger"] == "el4ner.engines.placing"
    assert logged["engine-placed"]["device"] == "cuda:0"
    assert logged["attention-refused"]["logger"] == "el4ner.engines.exllama.loading"
    assert "flash-attn is not installed" in logged["attention-refused"]["error"]
    assert logged["engine-loaded"]["attention"] == "torch"
    assert errors.count(PRINTED) >= 3, "in Python, to the descriptor, and from another process"


@pytest.mark.parametrize(("redirected", "reason"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["tag", "--help"],
        ["tag", "--ensemble", "instant", "Ada met Bob."],
        ["tag", "--ensemble", "instant", "--format", "json", "Ada met Bob."],
    ],
    ids=" ".join,
)
def test_results_that_cannot_be_written_are_a_line_and_an_exit_code(
    arguments: list[str], redirected: str, reason: str, tmp_path: Path
) -> None:
    done = in_shell(redirected, arguments, tmp_path)
    assert done.stderr.splitlines() == [
        f"error: standard output: results cannot be written there: {reason}: see where `>` or `|` leads"
    ]
    assert done.returncode == 1


def test_what_goes_to_a_standard_error_that_is_closed_goes_nowhere(tmp_path: Path) -> None:
    done = in_shell("2>&-", ["tag", "--config", str(tmp_path / "none.toml"), "Ada"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    done = in_shell("2>&-", ["tag", "--ensemble", "instant", "--format", "json", "Ada"], tmp_path)
    assert (done.returncode, json.loads(done.stdout)["text"]) == (0, "Ada")


def test_a_standard_input_that_is_closed_is_empty(tmp_path: Path) -> None:
    done = in_shell("<&-", ["tag", "--lines", "--ensemble", "instant"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def in_shell(redirected: str, arguments: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", sys.executable, "-m", "workers.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "EL4NER_CACHE_DIR": str(tmp_path / "cache")},
    )
