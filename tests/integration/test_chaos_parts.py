"""The parts of the chaos suite that its verdict rests on, against a real broker and real sockets."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator

import orjson
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from tests.chaos.clients import Watch, read_all
from tests.chaos.proxy import Proxy
from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import wait_until
from workers.local.ports import LOOPBACK, choose_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(120),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


def test_only_what_was_committed_is_counted(services: Endpoints) -> None:
    topic = f"tagged-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()

    def value(name: str) -> bytes:
        return orjson.dumps({"id": name, "revision": 3, "status": "complete"})

    watch = Watch(services.kafka_bootstrap, topic).start()
    producer = KafkaProducer(bootstrap_servers=services.kafka_bootstrap, transactional_id=topic)
    try:
        producer.init_transactions()
        for name, commits in (("a", True), ("never", False), ("b", True), ("nor-this", False)):
            producer.begin_transaction()
            for partition in (0, 1):
                producer.send(topic, key=name.encode(), value=value(f"{name}{partition}"), partition=partition)
            producer.flush()
            (producer.commit_transaction if commits else producer.abort_transaction)()
        producer.begin_transaction()
        producer.send(topic, key=b"open", value=value("open"), partition=0).get(timeout=10)
        expected = {("a0", 3), ("a1", 3), ("b0", 3), ("b1", 3)}
        wait_until(lambda: watch.seen >= expected, timeout=30, what="what was committed")
        # Also where the end of the topic is an aborted message, and where it is an open one.
        read = read_all(services.kafka_bootstrap, topic)
        assert sorted(orjson.loads(record.value)["id"] for record in read) == ["a0", "a1", "b0", "b1"]
        assert watch.seen == expected
        assert {(one.document, one.status, one.partition) for one in watch.emitted} == {
            ((f"{name}{partition}", 3), "complete", partition) for name in "ab" for partition in (0, 1)
        }
        producer.abort_transaction()
    finally:
        producer.close()
        watch.close()


class Recorder(socketserver.ThreadingTCPServer):
    """A server that keeps what it is sent, and answers every line with OK."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        recorder = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    recorder.lines.append(line.strip())
                    try:
                        self.wfile.write(b"OK\n")
                    except OSError:
                        return

        super().__init__((LOOPBACK, 0), Handler)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_was_held_back_arrives_late_though_its_sender_has_gone(recorder: Recorder) -> None:
    port = choose_port()
    with Proxy({port: recorder.server_address[1]}) as proxy:
        with socket.create_connection((LOOPBACK, port), timeout=10) as client:
            client.sendall(b"first\n")
            assert client.recv(10) == b"OK\n"
            proxy.hold()
            client.settimeout(0.5)
            client.sendall(b"second\n")
            client.sendall(b"third\n")
            with pytest.raises(TimeoutError):
                client.recv(10)
        assert recorder.lines == [b"first"]
        proxy.release()
        wait_until(lambda: recorder.lines == [b"first", b"second", b"third"], timeout=10, what="what was held back")


def answer(client: socket.socket, line: bytes = b"") -> bytes | None:
    """What comes back, None if the connection is broken."""
    try:
        client.sendall(line)
        return client.recv(10) or None
    except ConnectionError:
        return None


def test_a_cut_breaks_connections_until_it_is_mended(recorder: Recorder) -> None:
    port = choose_port()
    with Proxy({port: recorder.server_address[1]}) as proxy:
        with socket.create_connection((LOOPBACK, port), timeout=10) as client:
            client.sendall(b"first\n")
            assert client.recv(10) == b"OK\n"
            proxy.cut()
            assert answer(client) is None
        with socket.socket() as client:
            client.settimeout(10)
            client.connect((LOOPBACK, port))
            assert answer(client, b"lost\n") is None
        proxy.mend()
        with socket.create_connection((LOOPBACK, port), timeout=10) as client:
            client.sendall(b"second\n")
            assert client.recv(10) == b"OK\n"
    assert recorder.lines == [b"first", b"second"]


def test_a_slow_way_delays_everything(recorder: Recorder) -> None:
    port = choose_port()
    with (
        Proxy({port: recorder.server_address[1]}) as proxy,
        socket.create_connection((LOOPBACK, port), timeout=10) as client,
    ):
        proxy.slow_down(0.2)
        begun = time.monotonic()
        client.sendall(b"first\n")
        assert client.recv(10) == b"OK\n"
        assert time.monotonic() - begun >= 0.4
