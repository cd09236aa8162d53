"""Apache Kafka as a cluster on this machine: several JVMs, each broker and controller, for tests that break one.

A cluster is a description with processes, as :class:`~workers.local.server.LocalServer` is: whoever starts it stops it.
Its processes outlive their starter, so use it as a context manager, or see to it that :meth:`KafkaCluster.stop` runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workers.local.clients import connect
from workers.local.kafka_server import KafkaServer, NodeSettings, new_cluster_id
from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import ProcessIdentity, is_running, wait_until
from workers.local.server import Progress, no_progress
from workers.local.service_error import LocalServiceError
from workers.local.state import ServiceRecord

__all__ = ["KafkaCluster"]

_ASK_MS = 5_000


class _Node(KafkaServer):
    """A node whose ports and cluster are given: it comes back where it was."""

    def __init__(
        self,
        data_dir: Path,
        settings: NodeSettings,
        cluster_id: str,
        heap_mb: int,
        *,
        environ: Mapping[str, str],
        progress: Progress,
    ) -> None:
        super().__init__(data_dir, settings.port, heap_mb, environ=environ, progress=progress)
        self.settings = settings
        self._given_cluster_id = cluster_id

    def _settings(self, port: int) -> NodeSettings:
        return self.settings

    def _cluster_id(self) -> str:
        return self._given_cluster_id


class KafkaCluster:
    """``nodes`` brokers that are each other's controllers too, with their data under ``root``, numbered from 1.

    Topics that say nothing else, and Kafka's own, are kept on all nodes (three at most) and acknowledged when all but
    one have them. A node that was killed comes back on its ports with its data. The object is for one thread.

    Args:
        root: a folder of its own; it is left to the caller to delete.
        nodes: how many; a majority of them has to run for the cluster to answer.
        heap_mb: of each; a process takes about 150 MB more.
        detours: give every broker a second listener, by whose address clients are led to :attr:`detour_ports`: where
            the caller can put a proxy in front of :attr:`detour_targets`.
        environ: where Java is looked up and what the processes inherit.
        progress: takes one line that tells a person what goes on.
    """

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 3,
        heap_mb: int = 256,
        detours: bool = False,
        environ: Mapping[str, str],
        progress: Progress = no_progress,
    ) -> None:
        if nodes < 1:
            raise ValueError("a cluster has at least 1 node")
        self._records: dict[int, ServiceRecord] = {}
        taken: set[int] = set()

        def port() -> int:
            taken.add(chosen := choose_port(taken=frozenset(taken)))
            return chosen

        numbers = range(1, nodes + 1)
        voters = {node: port() for node in numbers}
        replicas = min(nodes, 3)
        cluster_id = new_cluster_id()
        self._nodes = {
            node: _Node(
                root.absolute() / f"node-{node}",
                NodeSettings(
                    node_id=node,
                    port=port(),
                    voters=voters,
                    detour=(port(), port()) if detours else None,
                    replicas=replicas,
                    min_insync=max(1, replicas - 1),
                ),
                cluster_id,
                heap_mb,
                environ=environ,
                progress=progress,
            )
            for node in numbers
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def nodes(self) -> list[int]:
        """The numbers of all nodes, whether they run or not."""
        return list(self._nodes)

    @property
    def running(self) -> list[int]:
        """The numbers of the nodes whose process runs."""
        return [node for node in self._nodes if self.process(node) is not None]

    @property
    def bootstrap(self) -> str:
        """``host:port`` of all brokers, with commas."""
        return ",".join(f"{LOOPBACK}:{node.settings.port}" for node in self._nodes.values())

    @property
    def detour_targets(self) -> dict[int, int]:
        """Where the second listener of each node listens; nothing without ``detours``."""
        return {node: server.settings.detour[0] for node, server in self._nodes.items() if server.settings.detour}

    @property
    def detour_ports(self) -> dict[int, int]:
        """Where clients of each node's second listener are led to; nothing listens there by itself."""
        return {node: server.settings.detour[1] for node, server in self._nodes.items() if server.settings.detour}

    def logs(self, node: int) -> list[Path]:
        """Where a node explains itself, the most telling first."""
        return self._nodes[node].logs

    def process(self, node: int) -> ProcessIdentity | None:
        """The process of a node, None if it does not run."""
        record = self._records.get(node)
        process = None if record is None else record.process
        return process if process is not None and is_running(process) else None

    def start(self, nodes: Sequence[int] | None = None, *, timeout_s: float = 90.0) -> None:
        """Start ``nodes`` (all) that do not run, and return when each of them serves and every running one knows them.

        Raises:
            LocalServiceError: one did not come to answer. What this call started is stopped again.
        """
        started: list[int] = []
        try:
            for node in self._nodes if nodes is None else nodes:
                if self.process(node) is None:
                    self._records[node] = self._nodes[node].launch()
                    started.append(node)
            for node in started:
                self._nodes[node].wait_ready(self._records[node], timeout_s=timeout_s)
            self._wait_registered(timeout_s)
        except BaseException:
            for node in started:
                with contextlib.suppress(LocalServiceError):
                    self._nodes[node].stop(self._records[node])
            raise

    def _wait_registered(self, timeout_s: float) -> None:
        if not wait_until(lambda: self.registered() >= set(self.running), timeout_s=timeout_s):
            raise LocalServiceError(
                f"the brokers {self.running} run, but after {timeout_s:.0f} s the cluster knows only "
                f"{sorted(self.registered())}: look at {self._nodes[self.nodes[0]].logs[1]}"
            )

    def kill(self, *nodes: int) -> None:
        """``kill -9``, all of them before any is waited for; returns when they are gone. Their data stays."""
        killed = {node: process for node in nodes if (process := self.process(node)) is not None}
        for process in killed.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if not wait_until(lambda: not any(map(is_running, killed.values())), timeout_s=10):
            raise LocalServiceError(f"brokers {sorted(killed)} do not end by SIGKILL: look at them with ps")

    def restart(self, *nodes: int, timeout_s: float = 90.0) -> None:
        """:meth:`kill` and :meth:`start`."""
        self.kill(*nodes)
        self.start(nodes, timeout_s=timeout_s)

    def stop(self) -> None:
        """Stop every node: asked first, killed if it does not end. All are tried, then the first error is raised."""
        processes = [process for node in self._nodes if (process := self.process(node)) is not None]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                # All at once: a node that is stopped alone hands its partitions over to those that are stopped next.
                os.kill(process.pid, signal.SIGTERM)
        wait_until(lambda: not any(map(is_running, processes)), timeout_s=10.0)
        # What is left is the last node or two, which wait for a majority that is gone.
        self.kill(*self._nodes)

    def registered(self) -> set[int]:
        """The brokers that clients are told of; none while nobody answers."""
        described = self._ask(lambda admin: admin.describe_cluster())
        return set() if described is None else {int(broker["broker_id"]) for broker in described["brokers"]}

    def controller(self) -> int | None:
        """The active controller: the node that leads the metadata quorum. None while there is none.

        Clients' metadata do not tell: under KRaft they name any broker.
        """
        quorum = self._ask(lambda admin: admin.describe_metadata_quorum())
        leader = None if quorum is None else int(quorum["topics"][0]["partitions"][0]["leader_id"])
        return leader if leader in self._nodes else None

    def lagging(self) -> list[str]:
        """Partitions, as ``topic-number``, that some replica is behind with or that have no leader."""
        return self._ask(_lagging) or []

    def wait_in_sync(self, *, timeout_s: float = 90.0) -> None:
        """Return when every node runs and holds everything. ``LocalServiceError`` if that does not come."""

        def settled() -> bool:
            return self.registered() == set(self._nodes) and self.controller() is not None and not self.lagging()

        if not wait_until(settled, timeout_s=timeout_s):
            raise LocalServiceError(
                f"after {timeout_s:.0f} s brokers {sorted(self.registered())} of {self.nodes} answer, and these "
                f"partitions are not in sync: {', '.join(self.lagging()[:5]) or 'none'}"
            )

    def _ask(self, question: Any) -> Any:
        """The answer of the first broker that has one, None if none has."""
        # Imported here: it takes a quarter of a second, which starting and stopping need not pay.
        from kafka.admin import KafkaAdminClient
        from kafka.errors import KafkaError

        for node in self.running:
            record = self._records[node]
            # kafka-python logs every refused connection as an error; a broker that starts is not asked yet.
            if not self._nodes[node].answers(record):
                continue
            try:
                admin = connect(
                    KafkaAdminClient,
                    bootstrap_servers=record.address,
                    bootstrap_timeout_ms=_ASK_MS,
                    request_timeout_ms=_ASK_MS,
                )
            except KafkaError:
                continue
            try:
                return question(admin)
            except KafkaError:
                continue
            finally:
                admin.close()
        return None


def _lagging(admin: Any) -> list[str]:
    names = admin.list_topics()
    return [
        f"{topic['name']}-{partition['partition_index']}"
        for topic in (admin.describe_topics(names) if names else [])
        for partition in topic["partitions"]
        if partition["leader_id"] < 0 or len(partition["isr_nodes"]) < len(partition["replica_nodes"])
    ]
