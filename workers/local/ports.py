"""Free TCP ports on the loopback address."""

from __future__ import annotations

import contextlib
import secrets
import socket

from workers.local.service_error import LocalServiceError

__all__ = ["LOOPBACK", "accepts_connections", "choose_port", "is_free"]

LOOPBACK = "127.0.0.1"

# Below the ephemeral ranges of Linux (32768 and up) and macOS (49152 and up): a port found free here cannot be
# taken by somebody's outgoing connection before the server binds it, which a port from bind(0) can.
_FIRST, _COUNT, _TRIES = 20_000, 10_000, 200


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of a former server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_port(preferred: int | None = None, *, taken: frozenset[int] = frozenset()) -> int:
    """``preferred`` if it is free, else a random free port, never one of ``taken``.

    Nothing is reserved: the caller binds it soon.
    """
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_COUNT)
        if port not in taken and is_free(port):
            return port
    raise LocalServiceError(
        f"no free port between {_FIRST} and {_FIRST + _COUNT - 1} on {LOOPBACK}: stop what occupies them"
    )


def accepts_connections(host: str, port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether something accepts a TCP connection there within ``timeout_s``."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=timeout_s):
        return True
    return False
