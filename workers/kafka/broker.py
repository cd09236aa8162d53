"""Connecting a client of kafka-python, after one quick connection that tells whether a broker answers and lets us in.

kafka-python itself tries to bootstrap for ten seconds, whatever is wrong, and then often does not say what (over TLS it
has lost the reason). A client whose constructor fails leaks its sockets, too. A connection of aiokafka's gives the
reason within milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from workers import security
from workers.config import BOOTSTRAP_VARIABLES, KafkaSettings

__all__ = ["connect", "no_broker_message"]

_CONNECT_SECONDS: Final = 3.0


def connect(settings: KafkaSettings, client: Any, failure: type[El4nerError], **options: Any) -> Any:
    """A kafka-python ``client`` (class) with ``options``, connected as the settings of ``[kafka]`` say.

    Raises:
        El4nerError: of the kind ``failure``: no broker answers, its certificate is not trusted, or it does not let the
            user in.
        ConfigError: a file that the settings name cannot be used.
    """
    no_broker = no_broker_message(settings)
    secure = security.kafka_options(settings)
    if settings.security_protocol == "PLAINTEXT":
        refusal = None if _accepts(settings) else no_broker
    else:
        # In a thread of its own, where there is no other event loop.
        with ThreadPoolExecutor(1) as thread:
            refusal = thread.submit(asyncio.run, _refusal(settings, secure)).result()
    if refusal is not None:
        raise failure(refusal)
    try:
        return client(
            bootstrap_servers=settings.servers,
            bootstrap_timeout_ms=10_000,
            request_timeout_ms=int(settings.request_timeout_seconds * 1000),
            **secure,
            **options,
        )
    except KafkaError as error:
        raise failure(f"{no_broker}\n{type(error).__name__}: {error}{_protocol_hint(settings)}") from error


def no_broker_message(settings: KafkaSettings, *, environ: Mapping[str, str] = os.environ) -> str:
    """The message where no broker answers: at which address, where that comes from, and what to do."""
    return (
        f"no Kafka broker answers at {settings.bootstrap_servers}: that is kafka.bootstrap_servers, "
        f"{_where_from(settings, environ)}\n"
        'start one on this machine with: eval "$(el4ner local up)"; '
        "or set kafka.bootstrap_servers, or KAFKA_BOOTSTRAP_SERVERS, to where yours listens"
    )


def _where_from(settings: KafkaSettings, environ: Mapping[str, str]) -> str:
    if "bootstrap_servers" not in settings.model_fields_set:
        return "by default"
    for name in BOOTSTRAP_VARIABLES:
        if name in environ and [part.strip() for part in environ[name].split(",")] == settings.servers:
            return f"from the variable {name}"
    return "from the configuration"


def _accepts(settings: KafkaSettings) -> bool:
    """Whether one of the bootstrap servers accepts a connection."""
    for server in settings.servers:
        with contextlib.suppress(OSError):
            socket.create_connection(_host_and_port(server), timeout=_CONNECT_SECONDS).close()
            return True
    return False


async def _refusal(settings: KafkaSettings, secure: Mapping[str, Any]) -> str | None:
    """Why none of the bootstrap servers lets us in; None if one does."""
    # Imported here: plain text does without it.
    from aiokafka.conn import create_conn
    from aiokafka.errors import KafkaConnectionError
    from aiokafka.errors import KafkaError as AioKafkaError

    refusal = no_broker_message(settings)
    for server in settings.servers:
        host, port = _host_and_port(server)
        try:
            connection = await create_conn(host, port, request_timeout_ms=int(_CONNECT_SECONDS * 1000), **secure)
        except ssl.SSLCertVerificationError as error:
            refusal = (
                f"the certificate of the broker at {server} is not trusted: {error.verify_message}\n"
                "kafka.ssl_cafile names the authorities that are"
            )
        except ssl.SSLError as error:
            refusal = f"TLS with the broker at {server} failed: {error.reason}{_protocol_hint(settings)}"
        except (KafkaConnectionError, asyncio.IncompleteReadError, ConnectionResetError) as error:
            refusal = (
                f"the broker at {server} broke the connection off: {error.__cause__ or error}{_protocol_hint(settings)}"
            )
        except AioKafkaError as error:
            refusal = (
                f"the broker at {server} does not let the user {settings.sasl_username!r} in: {error}\n"
                "kafka.sasl_mechanism, kafka.sasl_username and the password have to be as the broker has them"
            )
        except (OSError, TimeoutError):
            continue
        else:
            await connection.close()
            return None
    return refusal


def _protocol_hint(settings: KafkaSettings) -> str:
    return f"\nkafka.security_protocol is {settings.security_protocol}: is that the port of such a listener?"


def _host_and_port(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)
