"""The stream's sections of the configuration file, beside the method's own (:mod:`el4ner.config`).

``KAFKA_BOOTSTRAP_SERVERS`` and ``REDIS_URL`` are read too, as every Kafka and Redis client's users expect; el4ner's own
``EL4NER_KAFKA__BOOTSTRAP_SERVERS`` and ``EL4NER_REDIS__URL`` win over them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from el4ner.config import Section, Settings, load_settings
from el4ner.errors import ConfigError

__all__ = ["KafkaSettings", "RedisSettings", "StreamSettings", "WorkerSettings", "load_stream_settings"]

PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class KafkaSettings(Section):
    """``[kafka]``: where the broker is, and what its topics look like."""

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    """``host:port``, several with commas."""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = ""
    """Put before every topic's and every consumer group's name, so that several pipelines share a cluster."""
    partitions: PositiveInt = 4
    replication: PositiveInt = 1
    retention_hours: Seconds = 168.0
    """How long documents, stage messages and results are kept. Dead letters are kept four times as long."""
    max_message_bytes: PositiveInt = 8 * 1024 * 1024
    """The largest document message that comes in (and goes, byte for byte, to the dead letters)."""
    session_timeout_seconds: Annotated[float, Field(ge=6)] = 10.0
    """A worker that was killed is replaced after this long."""
    max_poll_interval_seconds: Seconds = 3600.0
    """A worker that makes no progress for this long loses its partitions: longer than the slowest batch."""
    request_timeout_seconds: Seconds = 30.0

    @field_validator("bootstrap_servers")
    @classmethod
    def _has_servers(cls, value: str) -> str:
        servers = [server.strip() for server in value.split(",")]
        for server in servers:
            host, colon, port = server.rpartition(":")
            if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"expected host:port (several with commas), but {server!r} is none")
        return ",".join(servers)

    @property
    def servers(self) -> list[str]:
        """``bootstrap_servers`` as a list."""
        return self.bootstrap_servers.split(",")


class RedisSettings(Section):
    """``[redis]``: the cache of demonstration retrieval. Without it everything works, slower."""

    enabled: bool = True
    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")] = "redis://localhost:6379/0"
    ttl_seconds: PositiveInt = 86_400
    max_connections: PositiveInt = 8
    timeout_seconds: Seconds = 0.25
    """For a connection and for each answer: a cache that is slower than this is no help."""
    retry_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long an unreachable cache is left alone before it is tried again."""


class WorkerSettings(Section):
    """``[worker]``: batching, the join's clock, and the process."""

    batch_documents: PositiveInt = 32
    batch_seconds: Seconds = 0.1
    """A batch that is not full starts after this long."""
    batches_in_flight: PositiveInt = 4
    """Batches whose answers are still on their way to Kafka while the next one is worked on."""
    deadline_seconds: Seconds = 3600.0
    """A document whose stages have not all answered by then is emitted with what there is."""
    remember_seconds: Seconds = 3600.0
    """How long a finished document is remembered, so that late or repeated messages emit nothing."""
    tick_seconds: Seconds = 1.0
    joins_in_flight: Annotated[int, Field(ge=2)] = 512
    """Messages of the join whose writes are still on their way to Kafka."""
    table_store: Literal["memory://"] = "memory://"
    """Where the join's table is kept; Kafka's changelog is what survives the process."""
    data_dir: Path = Path(".el4ner/workers")
    web_port: Annotated[int, Field(ge=0, lt=65536)] | None = None
    """Port of ``/healthz``; 0 takes a free one; none: no web server."""
    web_host: str = "127.0.0.1"
    stall_seconds: Seconds = 900.0
    """A partition that has messages and has not got on for longer makes ``/healthz`` answer 503."""
    shutdown_seconds: Seconds = 30.0
    """How long a stopping worker finishes what it has begun."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, otherwise JSON lines."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class StreamSettings(Settings):
    """The whole file."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()


def load_stream_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> StreamSettings:
    """As :func:`el4ner.config.load_settings`, with the stream's sections and the two usual variables.

    Raises:
        ConfigError: names the key (or the variable) and what is allowed.
    """
    usual = {
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        "EL4NER_REDIS__URL": environ.get("REDIS_URL"),
    }
    merged = {**{name: value for name, value in usual.items() if value}, **environ}
    try:
        return load_settings(StreamSettings, path, environ=merged, overrides=overrides)
    except ConfigError as error:
        message = str(error)
        for ours, theirs in (
            ("EL4NER_KAFKA__BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
            ("EL4NER_REDIS__URL", "REDIS_URL"),
        ):
            if ours not in environ:
                message = message.replace(f"(from {ours})", f"(from {theirs})")
        raise ConfigError(message) from error
