"""Three real brokers: what they keep when one is killed, or all of them, and where they lead their clients."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from tests.chaos.proxy import Proxy
from tests.support.cluster import KafkaCluster
from workers.local.ports import LOOPBACK
from workers.local.processes import is_running, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,  # only `make test-chaos` has such a cluster
    pytest.mark.long,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    # … and it forgets to close the sockets of connections that were refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _forgotten_sockets_are_closed() -> Iterator[None]:
    """While the warning is still ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """For all tests of this file; each leaves it with every node running and in sync."""
    with KafkaCluster(tmp_path_factory.mktemp("cluster"), detours=True, environ=os.environ) as started:
        yield started


def admin(bootstrap: str) -> Any:
    return contextlib.closing(KafkaAdminClient(bootstrap_servers=bootstrap))


def create(cluster: KafkaCluster, topic: str) -> None:
    with admin(cluster.bootstrap) as client:
        client.create_topics([topic], wait_for_metadata=True)


def produce(cluster: KafkaCluster, topic: str, *values: bytes) -> None:
    with contextlib.closing(KafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all")) as producer:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(timeout=60)


def consume(cluster: KafkaCluster, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=cluster.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        group_id=None,
        consumer_timeout_ms=30_000,
    )
    with contextlib.closing(consumer):
        return [record.value for record, _ in zip(consumer, range(count), strict=False)]


def test_what_is_written_is_on_all_nodes_and_outlives_the_controller(cluster: KafkaCluster) -> None:
    assert cluster.running == cluster.nodes == [1, 2, 3]
    create(cluster, "kept")
    with admin(cluster.bootstrap) as client:
        (topic,) = client.describe_topics(["kept"])
        assert sorted(topic["partitions"][0]["replica_nodes"]) == cluster.nodes
    produce(cluster, "kept", b"before")
    controller = cluster.controller()
    assert controller is not None
    cluster.kill(controller)
    assert controller not in cluster.running
    assert wait_until(lambda: cluster.controller() not in {None, controller}, timeout_s=30)
    produce(cluster, "kept", b"while it is away")
    ports = cluster.bootstrap
    cluster.start()
    assert cluster.bootstrap == ports
    cluster.wait_in_sync()
    assert cluster.running == cluster.nodes
    assert consume(cluster, "kept", 2) == [b"before", b"while it is away"]


def test_all_nodes_killed_at_once_come_back_with_what_they_acknowledged(cluster: KafkaCluster) -> None:
    create(cluster, "kept-by-all")
    produce(cluster, "kept-by-all", b"acknowledged")
    cluster.restart(*cluster.nodes)
    cluster.wait_in_sync()
    assert consume(cluster, "kept-by-all", 1) == [b"acknowledged"]


def test_clients_of_the_second_listener_are_led_to_the_detour(cluster: KafkaCluster) -> None:
    ports, targets = cluster.detour_ports, cluster.detour_targets
    with (
        Proxy({ports[node]: targets[node] for node in cluster.nodes}),
        # In by one of them, and from there on by the addresses that the broker tells.
        admin(f"{LOOPBACK}:{ports[1]}") as client,
    ):
        told = {broker["broker_id"]: broker["port"] for broker in client.describe_cluster()["brokers"]}
    assert told == cluster.detour_ports
    assert not set(ports.values()) & set(targets.values())


def test_nothing_runs_after_stop_and_its_data_can_be_started_again(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path, nodes=1, environ=os.environ) as alone:
        process = alone.process(1)
        assert process is not None
        create(alone, "kept")
        begun = time.monotonic()
        alone.stop()
        assert not is_running(process)
        assert alone.running == []
        assert time.monotonic() - begun < 20
        assert alone.controller() is None
        alone.start()
        with admin(alone.bootstrap) as client:
            assert client.list_topics() == ["kept"]
    assert alone.running == []
