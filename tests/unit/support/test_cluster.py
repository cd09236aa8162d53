"""A cluster's settings, as far as they can be held without a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import KafkaCluster
from workers.local.kafka_server import NodeSettings


def read(properties: str) -> dict[str, str]:
    lines = (line.partition("=") for line in properties.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def test_a_node_alone_keeps_everything_once() -> None:
    properties = read(NodeSettings(node_id=1, port=9092, voters={1: 9093}).properties())
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    factors = {value for name, value in properties.items() if name.endswith("replication.factor")}
    assert factors == {properties["min.insync.replicas"]} == {"1"}


def test_a_node_of_three_keeps_everything_three_times_and_waits_for_two() -> None:
    node = NodeSettings(
        node_id=2, port=1002, voters={1: 1011, 2: 1012, 3: 1013}, detour=(1022, 1032), replicas=3, min_insync=2
    )
    properties = read(node.properties())
    assert properties["node.id"] == "2"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:1011,2@127.0.0.1:1012,3@127.0.0.1:1013"
    assert properties["listeners"] == ("PLAINTEXT://127.0.0.1:1002,CONTROLLER://127.0.0.1:1012,DETOUR://127.0.0.1:1022")
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1002,DETOUR://127.0.0.1:1032"
    assert properties["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DETOUR:PLAINTEXT"
    assert {value for name, value in properties.items() if name.endswith("replication.factor")} == {"3"}
    insync = {value for name, value in properties.items() if name.endswith(("min.insync.replicas", "min.isr"))}
    assert insync == {"2"}


def test_nodes_have_ports_of_their_own_and_run_only_when_started(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path, nodes=3, detours=True, environ={})
    ports = [int(address.rpartition(":")[2]) for address in cluster.bootstrap.split(",")]
    ports += [*cluster.detour_ports.values(), *cluster.detour_targets.values()]
    assert len(set(ports)) == 9
    assert cluster.nodes == [1, 2, 3]
    assert cluster.running == []
    assert cluster.controller() is None
    cluster.kill(1)
    cluster.stop()
    assert not any(tmp_path.iterdir())


def test_without_detours_there_are_none(tmp_path: Path) -> None:
    assert KafkaCluster(tmp_path, environ={}).detour_ports == {}
    with pytest.raises(ValueError, match="at least 1"):
        KafkaCluster(tmp_path, nodes=0, environ={})
