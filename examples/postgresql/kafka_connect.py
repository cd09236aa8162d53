"""Kafka Connect as a process of this machine, with Debezium's JDBC sink, for the example and its test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from examples.local_stream import ExampleError
from examples.postgresql.database import Database
from workers.local.jars import JarSet, fetch_jars
from workers.local.java import find_java
from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import log_excerpt

__all__ = ["CONNECT", "DOCUMENTS_SINK", "ENTITIES_SINK", "FOLDER", "SINK", "Connect", "connector", "sink_environ"]

FOLDER: Final = Path(__file__).parent
CONNECT: Final = JarSet(
    name="connect",
    title="Kafka Connect",
    pom=FOLDER / "connect" / "pom.xml",
    version_property="kafka.version",
    megabytes=35,
)
SINK: Final = JarSet(
    name="jdbc-sink",
    title="Debezium's JDBC sink",
    pom=FOLDER / "plugin" / "pom.xml",
    version_property="debezium.version",
    megabytes=60,
    goal="unpack",
)
DOCUMENTS_SINK: Final = "el4ner-documents"
ENTITIES_SINK: Final = "el4ner-entities"
_LOG_CONFIGURATION: Final = FOLDER.parents[1] / "workers" / "local" / "kafka" / "log4j2.properties"


class Connect:
    """A worker of Kafka Connect. ``url``: its REST interface."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, url: str) -> None:
        self._process = process
        self._folder = folder
        self.url = url

    @classmethod
    @contextlib.contextmanager
    def running(
        cls,
        folder: Path,
        environ: Mapping[str, str],
        settings: Mapping[str, str],
        progress: Callable[[str], None] = lambda _line: None,
    ) -> Iterator[Connect]:
        """Start a worker with its files in ``folder``; it may not answer yet. It ends with the block.

        ``environ`` has what the configurations take from it; ``settings`` go before those of ``connect.properties``.
        """
        java = find_java(os.environ)
        if java is None:
            raise ExampleError(
                "Kafka Connect needs Java 17 or newer: for example apt-get install openjdk-17-jre-headless"
            )
        with ThreadPoolExecutor() as pool:  # Maven waits for the network most of the time
            jars, sink = pool.map(partial(fetch_jars, os.environ, progress), (CONNECT, SINK))
        (folder / "plugins").symlink_to(sink)
        url = f"http://{LOOPBACK}:{choose_port(8083)}"
        own = {"listeners": url, **settings}
        properties = (FOLDER / "connect.properties").read_text() + "".join(f"{k}={v}\n" for k, v in own.items())
        (folder / "connect.properties").write_text(properties)
        with (folder / "connect.out").open("wb") as output:
            process = subprocess.Popen(
                [
                    str(java),
                    "-Xmx512m",
                    # For a quick start: workers/local/kafka_server.py has what it is worth.
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UseSerialGC",
                    f"-Dlog4j2.configurationFile={_LOG_CONFIGURATION.as_uri()}",
                    "-Del4ner.kafka.log=connect.log",
                    "-cp",
                    f"{jars}/*",
                    "org.apache.kafka.connect.cli.ConnectDistributed",
                    "connect.properties",
                ],
                cwd=folder,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield cls(process, folder, url)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_ready(self, *, seconds: float = 120.0) -> None:
        """Until it answers."""
        self._wait(lambda: self.ask("GET", "/connectors") is not None, seconds, "Kafka Connect answers")

    def configure(self, name: str, config: Mapping[str, str], *, seconds: float = 60.0) -> None:
        """Create or change a connector, and wait until its tasks run. Raises ``ExampleError`` if they do not."""
        path = f"/connectors/{name}/config"
        self._wait(lambda: self.ask("PUT", path, config) is not None, seconds, f"{name} is configured")
        self._wait(lambda: self._tasks_run(name), seconds, f"the tasks of {name} run")

    def go_on_from(self, name: str, offsets: Sequence[tuple[str, int, int]] = (), *, seconds: float = 60.0) -> None:
        """Stop a connector, have it go on from these offsets (topic, partition, offset), and wait until it runs.

        Without offsets it begins with the first messages again.
        """
        entries = [
            {"partition": {"kafka_topic": topic, "kafka_partition": partition}, "offset": {"kafka_offset": offset}}
            for topic, partition, offset in offsets
        ]
        path = f"/connectors/{name}"
        self._wait(lambda: self.ask("PUT", f"{path}/stop") is not None, seconds, f"{name} is told to stop")
        self._wait(lambda: self._moves(name, entries), seconds, f"{name} is stopped, and its offsets are changed")
        self._wait(lambda: self.ask("PUT", f"{path}/resume") is not None, seconds, f"{name} is told to go on")
        self._wait(lambda: self._tasks_run(name), seconds, f"the tasks of {name} run")

    def check(self, name: str) -> None:
        """Raises ``ExampleError`` with the reason if the worker or a task of this connector has ended."""
        self._check_process()
        self._tasks_run(name)

    def log_excerpt(self) -> str:
        """What it said last that was an error."""
        return log_excerpt([self._folder / "connect.log", self._folder / "connect.out"]) or "its log is empty"

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a request, None if there is none yet. Raises ``ExampleError`` if it is refused."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            if error.code in (404, 409, 503):  # it starts, or its members are changing
                return None
            raise ExampleError(f"Kafka Connect refuses {method} {path}: {said}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def _moves(self, name: str, entries: Sequence[Mapping[str, Any]]) -> bool:
        if (self.ask("GET", f"/connectors/{name}/status") or {"connector": {}})["connector"].get("state") != "STOPPED":
            return False
        path = f"/connectors/{name}/offsets"
        try:
            moved = self.ask("PATCH", path, {"offsets": entries}) if entries else self.ask("DELETE", path)
        except ExampleError:  # its consumers are leaving their group
            return False
        return moved is not None

    def _tasks_run(self, name: str) -> bool:
        status = self.ask("GET", f"/connectors/{name}/status") or {"tasks": []}
        for task in status["tasks"]:
            if task["state"] == "FAILED":
                raise ExampleError(f"task {task['id']} of {name} failed: {task['trace']}")
        return bool(status["tasks"]) and all(task["state"] == "RUNNING" for task in status["tasks"])

    def _check_process(self) -> None:
        if self._process.poll() is not None:
            raise ExampleError(f"Kafka Connect ended with {self._process.returncode}: {self.log_excerpt()}")

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self._check_process()
            if time.monotonic() > end:
                raise ExampleError(f"not within {seconds:g} s: {what}; {self.log_excerpt()}")
            time.sleep(0.1)


def connector(name: str = DOCUMENTS_SINK) -> dict[str, str]:
    """``documents-sink.json`` or ``entities-sink.json``."""
    config: dict[str, str] = json.loads((FOLDER / f"{name.removeprefix('el4ner-')}-sink.json").read_text())
    return config


def sink_environ(bootstrap: str, database: Database, *, topic_prefix: str = "") -> Mapping[str, str]:
    """The variables that ``connect.properties`` and ``documents-sink.json`` name."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_TOPIC_PREFIX": topic_prefix,
        "POSTGRES_URL": database.jdbc_url,
        "POSTGRES_USER": database.user,
        "POSTGRES_PASSWORD": database.password,
    }
