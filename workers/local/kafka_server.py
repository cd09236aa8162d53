"""Apache Kafka on this machine: a JVM that is broker and controller (KRaft), no container.

One of them is a cluster by itself; :mod:`tests.support.cluster` makes several into one.
"""

from __future__ import annotations

import base64
import re
import secrets
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from workers.local.clients import connect
from workers.local.jars import cached_jars, fetch_jars
from workers.local.java import MINIMUM_JAVA, find_java, find_maven
from workers.local.ports import LOOPBACK, accepts_connections, choose_port
from workers.local.processes import log_excerpt, run_to_end, spawn_detached
from workers.local.server import LocalServer, Progress, no_progress
from workers.local.service_error import LocalServiceError
from workers.local.state import ServiceName, ServiceRecord

__all__ = ["MAX_MESSAGE_BYTES", "KafkaServer", "NodeSettings", "new_cluster_id"]

MAX_MESSAGE_BYTES = 8 * 1024 * 1024

_LOG_CONFIGURATION = Path(__file__).parent / "kafka" / "log4j2.properties"

# Paths are relative to the process's folder: a properties file is Latin-1 and `log.dirs` splits at commas, and the
# project's folder may be called anything.
_PROPERTIES = """\
# Written by el4ner at every start; changes are lost.
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=data

# Topics are made on purpose, with their settings.
auto.create.topics.enable=false
num.partitions=1
default.replication.factor={replicas}
min.insync.replicas={min_insync}

# For a handful of consumer groups. One node holds once what a cluster keeps several times.
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min_insync}
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={min_insync}
# A worker that starts alone need not wait for company.
group.initial.rebalance.delay.ms=0

# A replica must be able to fetch the largest message; the broker's fetch.max.bytes (55 MiB) already is larger.
message.max.bytes={max_message_bytes}
replica.fetch.max.bytes={max_message_bytes}

# A week or 1 GiB a partition; small segments, as only a closed one can be deleted.
log.retention.hours=168
log.retention.bytes=1073741824
log.segment.bytes=134217728

# A small process: the default cleaner alone asks for 128 MiB of heap.
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSettings:
    """What differs from node to node of a cluster, and from cluster to cluster.

    ``voters``: every node's id and the port of its controller, this one's among them. ``detour``: a second listener,
    as the port that it has and the port that it tells its clients to come to; None: there is none. ``replicas``: how
    many copies there are of a topic that says nothing else, and of Kafka's own topics; ``min_insync``: how many of
    them have to have a message before it is acknowledged.
    """

    node_id: int
    port: int
    voters: Mapping[int, int]
    detour: tuple[int, int] | None = None
    replicas: int = 1
    min_insync: int = 1

    def properties(self) -> str:
        """The content of ``server.properties``."""
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": self.voters[self.node_id]}
        advertised = {"PLAINTEXT": self.port}
        if self.detour is not None:
            listeners["DETOUR"], advertised["DETOUR"] = self.detour
        return _PROPERTIES.format(
            node_id=self.node_id,
            voters=",".join(f"{node}@{LOOPBACK}:{port}" for node, port in self.voters.items()),
            listeners=_addresses(listeners),
            advertised=_addresses(advertised),
            protocols=",".join(f"{listener}:PLAINTEXT" for listener in listeners),
            replicas=self.replicas,
            min_insync=self.min_insync,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )


class KafkaServer(LocalServer):
    """The broker on ``data_dir``: formats the storage once, keeps topics, offsets and cluster id across restarts.

    ``heap_mb`` bounds the Java heap; the process takes about 150 MB more.
    """

    name: ClassVar[ServiceName] = "kafka"
    title: ClassVar[str] = "Kafka"

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        heap_mb: int = 512,
        *,
        environ: Mapping[str, str],
        progress: Progress = no_progress,
    ) -> None:
        super().__init__(data_dir, port, environ=environ, progress=progress)
        self._heap_mb = heap_mb

    @property
    @override
    def logs(self) -> list[Path]:
        """What the JVM itself printed, then the broker's log."""
        return [self._output, self._log]

    @override
    def missing(self) -> list[str]:
        """Java, and Maven as long as the jars are not cached."""
        lacking = []
        if find_java(self._environ) is None:
            lacking.append(f"Java {MINIMUM_JAVA} or newer (for example apt-get install openjdk-17-jre-headless)")
        if cached_jars(self._environ) is None and find_maven(self._environ) is None:
            lacking.append("Maven, which fetches Kafka's jars once (for example apt-get install maven)")
        return lacking

    @override
    def launch(self) -> ServiceRecord:
        """The first time it fetches the jars and formats the storage."""
        java = find_java(self._environ)
        if java is None:
            raise LocalServiceError(f"Kafka cannot run here: it needs {self.missing()[0]}")
        jars = fetch_jars(self._environ, self._progress)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        port = choose_port(self.port if self.port is not None else self._last_port())
        if self.port is not None and port != self.port:
            raise LocalServiceError(f"Kafka's port {self.port} is taken: stop what uses it or choose another")
        (self.data_dir / "server.properties").write_text(self._settings(port).properties())
        self._log.unlink(missing_ok=True)  # what it says of this start must not mix with the last one's errors
        if not (self.data_dir / "data" / "meta.properties").exists():
            self._format(java, jars)
        # A word of its own in the command line tells this very process from every other Java on the machine.
        marker = f"el4ner.instance={secrets.token_hex(8)}"
        self._progress(f"starting Kafka on {LOOPBACK}:{port}")
        process = spawn_detached(
            [*self._java(java, jars), f"-D{marker}", "kafka.Kafka", "server.properties"],
            marker=marker,
            cwd=self.data_dir,
            output=self._output,
            environ=self._environ,
        )
        return ServiceRecord(name=self.name, provider="local", host=LOOPBACK, port=port, process=process)

    @override
    def answers(self, record: ServiceRecord) -> bool:
        """Whether it has negotiated versions and names itself as a broker of the cluster."""
        # kafka-python logs every refused connection as an error, so it is not asked before the port is open.
        if not accepts_connections(record.host, record.port):
            return False
        # Imported here: it takes a quarter of a second that `status` and `down` need not pay.
        from kafka.admin import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            admin = connect(
                KafkaAdminClient,
                bootstrap_servers=record.address,
                bootstrap_timeout_ms=5_000,
                request_timeout_ms=5_000,
            )
        except KafkaError:
            return False
        try:
            return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False
        finally:
            admin.close()

    def _settings(self, port: int) -> NodeSettings:
        """This node, which listens on ``port``: a cluster by itself."""
        return NodeSettings(node_id=1, port=port, voters={1: choose_port(taken=frozenset({port}))})

    def _cluster_id(self) -> str:
        """The id that a new storage is given."""
        return new_cluster_id()

    @property
    def _log(self) -> Path:
        return self.data_dir / "kafka.log"

    @property
    def _output(self) -> Path:
        return self.data_dir / "kafka.out"

    def _last_port(self) -> int | None:
        try:
            written = (self.data_dir / "server.properties").read_text()
        except FileNotFoundError:
            return None
        listener = re.search(r"^advertised\.listeners=PLAINTEXT://[^,:]*:(\d+)", written, re.MULTILINE)
        return None if listener is None else int(listener.group(1))

    def _java(self, java: Path, jars: Path, *, log: str = "kafka.log") -> list[str]:
        """The command up to the main class. The options are for a quick start and a small process."""
        return [
            str(java),
            f"-Xmx{self._heap_mb}m",
            # Without the optimising compiler. Measured on 2 cores: 1.4 s and 1.7 s of CPU from launch to answer, with
            # it 1.9 s and 3.0 s; 40,000 messages in and out cost the broker 0.9 s of CPU, with it 1.8 s.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={_LOG_CONFIGURATION.as_uri()}",
            "-Dlog4j2.disableJmx=true",
            f"-Del4ner.kafka.log={log}",
            "-cp",
            f"{jars}/*",
        ]

    def _format(self, java: Path, jars: Path) -> None:
        """Give the storage its cluster id. Interrupted, it is done again."""
        self._progress("formatting Kafka's storage (once)")
        try:
            done = run_to_end(
                [
                    *self._java(java, jars, log="format.log"),
                    "kafka.tools.StorageTool",
                    "format",
                    "--ignore-formatted",
                    "--cluster-id",
                    self._cluster_id(),
                    "--config",
                    "server.properties",
                ],
                environ=self._environ,
                timeout_s=60,
                cwd=self.data_dir,
            )
        except subprocess.TimeoutExpired as error:
            raise LocalServiceError(
                f"formatting Kafka's storage took more than 60 s: look at {self.data_dir / 'format.log'}"
            ) from error
        if done.returncode != 0:
            self._output.write_text(done.stdout)
            raise LocalServiceError(
                f"Kafka's storage in {self.data_dir} cannot be formatted: {log_excerpt([self._output])}"
            )


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{listener}://{LOOPBACK}:{port}" for listener, port in ports.items())


def new_cluster_id() -> str:
    """16 random bytes in URL-safe Base64, as Kafka makes them: never with a dash first, which reads as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
