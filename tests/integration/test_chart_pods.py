"""The chart's pods on a real broker, without a cluster: their commands with their variables, as helm renders them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stream_harness import Stream, wait_until
from tests.support.chart import NO_HELM, Rendered, environ_of, helm_program
from tests.support.paths import ROOT
from workers.local.ports import choose_port
from workers.topics import Topic

# Before a broker is started.
pytestmark = [pytest.mark.integration, pytest.mark.skipif(helm_program() is None, reason=NO_HELM)]


def started(rendered: Rendered, name: str, folder: Path, **instead: str) -> subprocess.Popen[bytes]:
    """The last container of a pod as a process. ``instead``: what it is told in the place of a folder of the image."""
    (pod, container) = [(pod, each) for full, pod, each in rendered.containers() if full.startswith(f"{name}/")][-1]
    place = folder / name
    place.mkdir()
    environ = environ_of(pod, container, rendered.toml("topics" if name == "topics" else "config"), place) | instead
    threads = {"OMP_NUM_THREADS": "1"} if "OMP_NUM_THREADS" in environ else {}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.cli", *container["args"]],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(place)} | environ | threads,
            cwd=place,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture
def values(stream: Stream) -> Mapping[str, Any]:
    kafka = {"bootstrap_servers": stream.bootstrap, "topic_prefix": stream.prefix, "partitions": 2}
    return {"config": {"kafka": kafka, "ensemble": {"preset": "instant"}}}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # a status of an error is one, too
        return False


def test_what_the_chart_runs_makes_its_topics_is_probed_and_tags(
    stream: Stream, values: Mapping[str, Any], processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    rendered = Rendered.of(values=values)
    topics = started(rendered, "topics", tmp_path)
    processes.append(topics)
    assert topics.wait(60) == 0, (tmp_path / "topics.log").read_text(encoding="utf-8")

    port = choose_port()
    folder = {"EL4NER_WORKER__DATA_DIR": str(tmp_path / "data"), "EL4NER_WORKER__WEB_PORT": str(port)}
    worker = started(rendered, "pipeline", tmp_path, **folder)
    processes.append(worker)
    container = rendered.of_kind("Deployment")["pipeline"]["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        wait_until(lambda path=path: answers(port, path), what=f"{path} in {tmp_path / 'pipeline.log'}")
    stream.produce_documents([{"id": "one", "text": "Ada Lovelace met Charles Babbage in London."}])
    stream.wait_written(Topic.TAGGED_DOCUMENTS, 1)
    (tagged,) = stream.tagged()
    assert (tagged["id"], tagged["status"]) == ("one", "complete")

    check = started(rendered, "check", tmp_path)
    processes.append(check)
    assert check.wait(60) == 0, (tmp_path / "check.log").read_text(encoding="utf-8")
    worker.send_signal(signal.SIGTERM)
    grace = rendered.of_kind("Deployment")["pipeline"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert worker.wait(grace) == 0


def test_topics_that_do_not_fit_fail_the_job_which_says_why(
    stream: Stream, values: Mapping[str, Any], processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    stream.create_topics()  # four partitions
    more = {"config": {**values["config"], "kafka": {**values["config"]["kafka"], "replication": 3}}}
    job = started(Rendered.of(values=more), "topics", tmp_path)
    processes.append(job)
    assert job.wait(60) == 1
    assert "has replication 1, kafka.replication is 3" in (tmp_path / "topics.log").read_text(encoding="utf-8")
