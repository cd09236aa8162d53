"""Making a Kafka client, after asking whether anybody is there.

kafka-python tries for ten seconds and more to bootstrap, and a client whose constructor fails leaks its sockets; a
refused connection is known in a millisecond.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from workers.config import KafkaSettings

__all__ = ["connect"]

_CONNECT_SECONDS: Final = 3.0


def _answers(settings: KafkaSettings) -> bool:
    """Whether one of the bootstrap servers accepts a connection."""
    for server in settings.servers:
        host, _, port = server.rpartition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
            return True
    return False


def connect(settings: KafkaSettings, client: Any, failure: type[El4nerError], **options: Any) -> Any:
    """A kafka-python ``client`` (class) with ``options``, connected.

    Raises:
        El4nerError: of the kind ``failure``: no broker answers.
    """
    nobody = f"no Kafka broker answers at {settings.bootstrap_servers}"
    if not _answers(settings):
        raise failure(nobody)
    try:
        return client(
            bootstrap_servers=settings.servers,
            bootstrap_timeout_ms=10_000,
            request_timeout_ms=int(settings.request_timeout_seconds * 1000),
            **options,
        )
    except KafkaError as error:
        raise failure(f"{nobody}: {error}") from error
