"""The real Kafka and the real Valkey, without containers: what they keep, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

from tests.support.paths import ROOT
from workers.local.jars import fetch_jars
from workers.local.java import find_java
from workers.local.kafka_server import KafkaServer
from workers.local.ports import choose_port
from workers.local.processes import ProcessIdentity, is_running, wait_until
from workers.local.services import Services, down, status, temporary_services, up
from workers.local.state import ServiceRecord, StateFile
from workers.local.valkey_server import ValkeyServer, _find_binary

pytestmark = [
    pytest.mark.integration,
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

# Names of the caller's own services must not lead these tests away from the ones they start.
ENVIRON = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder whose services are down in the end, whatever the test did."""
    folder = tmp_path / "a folder, with spaces and ü"
    yield folder
    down(folder)


def processes_of(root: Path) -> list[ProcessIdentity]:
    """Kafka's and Valkey's processes."""
    found = [record.process for record in StateFile(root).read().values()]
    return [process for process in found if process is not None]


def create_topic(services: Services, topic: str) -> None:
    from kafka.admin import KafkaAdminClient

    with contextlib.closing(KafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)) as admin:
        admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})


def topics(services: Services) -> set[str]:
    from kafka.admin import KafkaAdminClient

    with contextlib.closing(KafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)) as admin:
        return set(admin.list_topics())


def produce(services: Services, topic: str, value: bytes) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=services.kafka_bootstrap, max_request_size=16 * 2**20)
    with contextlib.closing(producer):
        producer.send(topic, value).get(timeout=30)


def consume(services: Services, topic: str, *, group: str) -> bytes:
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=services.kafka_bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=30_000,
    )
    with contextlib.closing(consumer):
        return bytes(next(iter(consumer)).value)


def test_they_serve_keep_their_data_and_go(root: Path) -> None:
    said: list[str] = []
    services = up(root, environ=ENVIRON, progress=said.append)
    assert (services.kafka_provider, services.redis_provider) == ("local", "local")
    assert any("Kafka answers" in line for line in said)
    assert [(service.name, service.state) for service in status(root, environ=ENVIRON)] == [
        ("kafka", "running"),
        ("redis", "running"),
    ]

    create_topic(services, "kept")
    assert topics(services) == {"kept"}
    produce(services, "kept", b"a message")
    assert consume(services, "kept", group="readers") == b"a message"
    with redis.Redis.from_url(services.redis_url) as cache:
        cache.set("key", "value")
        assert cache.get("key") == b"value"
        assert cache.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}

    first = processes_of(root)
    assert up(root, environ=ENVIRON) == services, "up on running services changes nothing"
    assert processes_of(root) == first

    assert len(down(root)) == 2
    assert not any(is_running(process) for process in first)
    assert [service.state for service in status(root, environ=ENVIRON)] == ["stopped", "stopped"]
    assert down(root) == []

    again = up(root, environ=ENVIRON)
    assert again == services, "the ports are kept"
    assert topics(again) >= {"kept"}
    assert consume(again, "kept", group="other readers") == b"a message"
    assert not set(processes_of(root)) & set(first)


def test_what_was_killed_is_started_again_with_its_data(root: Path) -> None:
    services = up(root, environ=ENVIRON)
    create_topic(services, "kept")
    for process in processes_of(root):
        os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(is_running(process) for process in processes_of(root)), timeout_s=20)
    assert [service.state for service in status(root, environ=ENVIRON)] == ["stopped", "stopped"]
    assert "kept" in topics(up(root, environ=ENVIRON))


def test_two_ups_at_once_start_one_of_each(root: Path) -> None:
    script = (
        "import json, os, sys; from pathlib import Path; from workers.local.services import up;"
        "print(json.dumps(up(Path(sys.argv[1]), environ=os.environ).environ()))"
    )
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(root)],
            cwd=ROOT,
            env=ENVIRON,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [json.loads(caller.communicate(timeout=120)[0]) for caller in callers]
    assert answers[0] == answers[1]
    assert [caller.returncode for caller in callers] == [0, 0]
    assert [service.state for service in status(root, environ=ENVIRON)] == ["running", "running"], "they outlive both"


def test_messages_of_eight_megabytes_pass_and_topics_are_not_made_by_writing_to_them(root: Path) -> None:
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    with temporary_services(root, environ=ENVIRON) as services:
        producer = KafkaProducer(bootstrap_servers=services.kafka_bootstrap, max_block_ms=1_000)
        with contextlib.closing(producer), pytest.raises(KafkaError):
            producer.send("misspelt", b"lost").get(timeout=10)
        assert topics(services) == set()

        create_topic(services, "large")
        value = os.urandom(8 * 2**20 - 1024)
        produce(services, "large", value)
        assert consume(services, "large", group="readers") == value


def test_temporary_services_end_with_their_block_also_by_an_exception(root: Path) -> None:
    environ = ENVIRON | {"KAFKA_BOOTSTRAP_SERVERS": "somebody:9092", "REDIS_URL": "redis://somebody"}
    running: list[ProcessIdentity] = []

    class LeftEarlyError(Exception):
        pass

    def use() -> None:
        with temporary_services(root, environ=environ) as services:
            assert "somebody" not in services.kafka_bootstrap + services.redis_url
            running.extend(processes_of(root))
            raise LeftEarlyError

    with pytest.raises(LeftEarlyError):
        use()
    assert len(running) == 2
    assert not any(is_running(process) for process in running)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_temporary_services_do_not_outlive_a_killed_parent(root: Path, number: signal.Signals) -> None:
    # The parent forks a child that keeps all its files open, as multiprocessing does.
    script = (
        "import os, sys, time; from pathlib import Path; from workers.local.services import temporary_services\n"
        "with temporary_services(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        cwd=ROOT,
        env=ENVIRON,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            running = processes_of(root)
            assert [is_running(process) for process in running] == [True, True]
            parent.send_signal(number)
            assert wait_until(lambda: not any(is_running(process) for process in running), timeout_s=30)
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()


def test_broker_settings_of_the_compose_file_make_a_broker(tmp_path: Path) -> None:
    """The container's own start, without a container: its environment through the image's wrapper, then the broker."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    settings: dict[str, str] = compose["services"]["kafka"]["environment"]
    # What differs outside of the container: ports that may be taken, the name that others call it by, its folder.
    ports = {port: str(choose_port()) for port in ("9092", "19092", "29093")}
    for name, value in settings.items():
        for port, free in ports.items():
            value = re.sub(rf"(?<=:){port}\b", free, value)
        settings[name] = value.replace("${EL4NER_KAFKA_PORT:-9092}", ports["9092"])
    settings["KAFKA_LOG_DIRS"] = str(tmp_path / "data")

    java, jars = find_java(ENVIRON), fetch_jars(ENVIRON, lambda _: None)
    assert java is not None
    command = [str(java), *settings["KAFKA_HEAP_OPTS"].split(), "-cp", f"{jars}/*"]
    folders = {name: tmp_path / name for name in ("default", "mounted", "final")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
        (folders["default"] / name).touch()
    subprocess.run(
        [
            *command,
            "kafka.docker.KafkaDockerWrapper",
            "setup",
            *(part for name, folder in folders.items() for part in (f"--{name}-configs-dir", f"{folder}/")),
        ],
        env=ENVIRON | settings | {"CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw"},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    record = ServiceRecord(name="kafka", provider="docker", host="localhost", port=int(ports["9092"]))
    with (
        (tmp_path / "out").open("wb") as output,
        subprocess.Popen(
            [*command, "kafka.Kafka", str(folders["final"] / "server.properties")],
            env=ENVIRON,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as broker,
    ):
        try:
            server = KafkaServer(tmp_path, environ=ENVIRON)
            assert wait_until(lambda: broker.poll() is not None or server.answers(record), timeout_s=60)
            assert broker.poll() is None, (tmp_path / "out").read_text(errors="replace")[-2000:]
        finally:
            broker.terminate()
            broker.wait(timeout=30)


def test_redis_command_of_the_compose_file_makes_a_cache(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    _, *options = compose["services"]["redis"]["command"]
    port = choose_port()
    binary = _find_binary()
    assert binary is not None
    with subprocess.Popen(
        [str(binary), *options, "--port", str(port)], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as cache:
        try:
            record = ServiceRecord(name="redis", provider="docker", host="127.0.0.1", port=port)
            assert wait_until(lambda: ValkeyServer(tmp_path, environ={}).answers(record), timeout_s=20)
            with redis.Redis(port=port) as client:
                assert client.config_get("maxmemory") == {"maxmemory": str(256 * 2**20)}
                assert client.config_get("save") == {"save": ""}
        finally:
            cache.terminate()
            cache.wait(timeout=10)
