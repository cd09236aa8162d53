"""``el4ner demo`` and the stream's commands, as their users run them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.integration.conftest import Endpoints
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

OWN = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}}
COMMAND = [sys.executable, "-m", "workers.cli"]


def el4ner(
    *arguments: str, cwd: Path, environ: dict[str, str], timeout: float = 300, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    environ = {**environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def topics_of(bootstrap: str) -> set[str]:
    from kafka import KafkaAdminClient

    with contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        return set(admin.list_topics())


def processes_with(text: str) -> list[str]:
    """Command lines or environments that name the text, of whatever runs here."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            where = str((folder / "cwd").resolve())
            if (text in line or where.startswith(text)) and int(folder.name) != os.getpid():
                found.append(line)
    return found


def test_demo_on_its_own_services_leaves_nothing(tmp_path: Path) -> None:
    done = el4ner("demo", "--ensemble", "instant", "--limit", "12", cwd=tmp_path, environ=OWN)
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stdout.splitlines() if re.match(r"\[ ?\d+/12\] (news|log)-\d+ ", line)]
    assert len(shown) == 12
    assert len({line.split("] ")[1].split()[0] for line in shown}) == 12
    assert "12 of 12, 0 twice, 0 dead letters" in done.stdout
    assert "documents/s" in done.stdout
    assert list((tmp_path / ".el4ner" / "demo").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_demo_in_one_hop(tmp_path: Path, services: Endpoints) -> None:
    environ = {**OWN, "KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap, "REDIS_URL": services.redis_url}
    options = ("--ensemble", "instant", "--limit", "5", "--one-hop", "--keep")
    done = el4ner("demo", *options, cwd=tmp_path, environ=environ)
    assert done.returncode == 0, done.stderr
    assert "5 of 5, 0 twice, 0 dead letters" in done.stdout
    (folder,) = (tmp_path / ".el4ner" / "demo").iterdir()
    assert '"stages":["pipeline"]' in (folder / "workers.log").read_text().replace(" ", "")


def test_demo_keeps_its_folder_where_asked(tmp_path: Path, services: Endpoints) -> None:
    environ = {**OWN, "KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap, "REDIS_URL": services.redis_url}
    done = el4ner("demo", "--ensemble", "instant", "--limit", "1", "--keep", cwd=tmp_path, environ=environ)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / ".el4ner" / "demo").iterdir()
    assert (folder / "workers.log").read_text()
    assert f"kept in {folder.relative_to(tmp_path)}" in done.stderr


@contextlib.contextmanager
def running_demo(folder: Path, environ: dict[str, str], *options: str) -> Iterator[tuple[Any, IO[str], IO[str]]]:
    """The process, its standard output and standard error. Behind the block it has ended, and left nothing."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--ensemble", "instant", *options],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield process, process.stdout, process.stderr
        process.communicate(timeout=60)
    assert list((folder / ".el4ner" / "demo").iterdir()) == []
    assert processes_with(str(folder)) == []


@pytest.mark.parametrize(("numbers", "code"), [([signal.SIGINT], 130), ([signal.SIGTERM, signal.SIGTERM], 143)])
def test_an_interrupted_demo_stops_what_it_started(tmp_path: Path, numbers: list[signal.Signals], code: int) -> None:
    with running_demo(tmp_path, OWN) as (process, out, _):
        out.readline()  # the first tagged document
        for number in numbers:
            process.send_signal(number)
    assert process.returncode == code


def test_demo_with_the_page_goes_on_until_ctrl_c(tmp_path: Path, services: Endpoints) -> None:
    environ = {**OWN, "KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap, "REDIS_URL": services.redis_url}
    with running_demo(tmp_path, environ, "--limit", "1", "--one-hop", "--ui") as (process, out, err):
        said = "".join(itertools.takewhile(lambda line: line != "streaming 1 documents\n", err))
        (url,) = re.findall(r"^the page is at (http://127\.0\.0\.1:\d+/)$", said, re.MULTILINE)
        out.readline()  # the document, once
        with httpx.stream("GET", f"{url}api/events", timeout=60) as events:
            states = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
            assert any(state["documents"] > 1 for state in states)  # and again
        assert httpx.get(f"{url}api/health", timeout=60).json()["workers"][0]["error"] is None
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_demo_whose_workers_cannot_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "el4ner.toml"
    config.write_text('[pools]\ndefault = "mine"\n[pools.paths]\nmine = "./nowhere.jsonl"\n')
    arguments = ["demo", "--ensemble", "instant", "--config", "el4ner.toml"]
    done = el4ner(*arguments, cwd=tmp_path, environ=OWN)
    assert done.returncode == 1
    assert "error: the workers ended with exit code 2: nowhere.jsonl: no such pool" in done.stderr
    assert "Traceback" not in done.stderr
    (folder,) = (tmp_path / ".el4ner" / "demo").iterdir()
    assert (folder / "workers.log").is_file()
    assert processes_with(str(tmp_path)) == []


@pytest.mark.models
def test_demo_with_models_on_given_services_cleans_up_its_topics(tmp_path: Path, services: Endpoints) -> None:
    environ = {**OWN, "KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap, "REDIS_URL": services.redis_url}
    before = topics_of(services.kafka_bootstrap)
    done = el4ner("demo", "--limit", "6", cwd=tmp_path, environ=environ, timeout=580)
    assert done.returncode == 0, done.stderr
    assert "6 of 6, 0 twice, 0 dead letters" in done.stdout
    assert re.search(r"answers +\d+ of [1-9]\d* looked up in Redis were there", done.stdout)
    # Kafka makes these when a broker's first group or transaction begins.
    kafkas_own = {"__consumer_offsets", "__transaction_state"}
    assert topics_of(services.kafka_bootstrap) - kafkas_own == before - kafkas_own


def test_topics_produce_worker_and_tail(tmp_path: Path, services: Endpoints) -> None:
    environ = {
        **OWN,
        "KAFKA_BOOTSTRAP_SERVERS": services.kafka_bootstrap,
        "REDIS_URL": services.redis_url,
        "EL4NER_KAFKA__TOPIC_PREFIX": f"t{uuid.uuid4().hex[:8]}.",
    }

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return el4ner(*arguments, cwd=tmp_path, environ=environ, **options)

    missing = run("topics", "describe")
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr
    assert run("tail", "--limit", "1").stderr.startswith("error: topic ")

    assert run("topics", "create").returncode == 0
    described = [json.loads(line) for line in run("topics", "describe", "--format", "json").stdout.splitlines()]
    assert all(topic["exists"] and not topic["problems"] for topic in described)

    produced = run("produce", "-", stdin="Ada met Charles.\n\nIt rained in Paris.\nAda met Charles.\n")
    assert produced.returncode == 0, produced.stderr
    assert "3 documents sent" in produced.stderr

    ready = tmp_path / "ready"
    with subprocess.Popen(
        [*COMMAND, "worker", "all", "--ensemble", "instant", "--ready-file", str(ready), "--until-stdin-closes"],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as worker:
        # The third one is the first one once more: equal content has one id, and is tagged once.
        tailed = run("tail", "--from", "earliest", "--limit", "2", "--seconds", "60", "--format", "json", timeout=90)
        documents = [json.loads(line) for line in tailed.stdout.splitlines()]
        assert {document["text"] for document in documents} == {"Ada met Charles.", "It rained in Paris."}
        assert all(document["status"] == "complete" for document in documents)
        assert ready.exists()
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.stderr is not None
        worker.stderr.read()
        assert worker.wait(timeout=60) == 0


def test_no_broker_is_a_line(tmp_path: Path) -> None:
    environ = {**OWN, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "EL4NER_KAFKA__REQUEST_TIMEOUT_SECONDS": "5"}
    for arguments in (["topics", "describe"], ["tail"], ["produce", "-"], ["worker", "aggregate"]):
        done = el4ner(*arguments, cwd=tmp_path, environ=environ, stdin="x\n", timeout=120)
        assert done.returncode == 1, arguments
        said, remedy = done.stderr.splitlines()[-2:]
        assert said.startswith("error: no Kafka broker answers at 127.0.0.1:1"), done.stderr
        assert "from the variable KAFKA_BOOTSTRAP_SERVERS" in said
        assert "el4ner local up" in remedy
        assert "Traceback" not in done.stderr
