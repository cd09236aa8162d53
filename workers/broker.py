"""Is anybody there? Asked before a Kafka client is made.

kafka-python tries for ten seconds and more to bootstrap, and a client whose constructor fails leaks its sockets; a
refused connection is known in a millisecond.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from workers.config import KafkaSettings

__all__ = ["answers"]

_CONNECT_SECONDS: Final = 3.0


def answers(settings: KafkaSettings) -> bool:
    """Whether one of the bootstrap servers accepts a connection."""
    for server in settings.servers:
        host, _, port = server.rpartition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
            return True
    return False
