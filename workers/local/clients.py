"""kafka-python's clients of brokers that may be starting or ending."""

from __future__ import annotations

from typing import Any

__all__ = ["connect"]


def connect(client: Any, **options: Any) -> Any:
    """A kafka-python ``client`` (class) with ``options``, connected.

    A constructor of kafka-python's that fails leaves sockets and a thread behind; here they are closed.

    Raises:
        KafkaError: no broker answers.
    """
    networks = []

    def network(**config: Any) -> Any:
        networks.append(client.DEFAULT_CONFIG["kafka_client"](**config))
        return networks[0]

    try:
        return client(kafka_client=network, **options)
    except BaseException:
        for opened in networks:
            opened.close()
        raise
