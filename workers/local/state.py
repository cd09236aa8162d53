"""What runs: ``state.json`` in the services' folder, and the lock that serialises who changes it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from workers.local.processes import ProcessIdentity
from workers.local.service_error import LocalServiceError

__all__ = ["Provider", "ServiceName", "ServiceRecord", "StateFile", "exclusive"]

ServiceName = Literal["kafka", "redis"]
Provider = Literal["environment", "local", "docker"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceRecord:
    """One service that was started here. ``process`` is None where Docker runs it."""

    name: ServiceName
    provider: Provider
    host: str
    port: int
    process: ProcessIdentity | None = None

    @property
    def address(self) -> str:
        """What a client is configured with: ``host:port`` for Kafka, a URL for Redis."""
        return f"redis://{self.host}:{self.port}/0" if self.name == "redis" else f"{self.host}:{self.port}"


class StateFile:
    """``state.json`` under ``root``. Every write replaces the file as a whole, so a reader never sees half of one.

    Change it only inside :func:`exclusive`. What it says is what was started, not what still runs.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "state.json"

    def read(self) -> dict[ServiceName, ServiceRecord]:
        """The recorded services; none if there is no file. ``LocalServiceError`` if it cannot be understood."""
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            if content["version"] != _VERSION:
                raise self._unreadable(f"version {content['version']}")
            return {name: _record(name, entry) for name, entry in content["services"].items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def put(self, record: ServiceRecord) -> None:
        """Add or replace one service."""
        self._write(self.read() | {record.name: record})

    def remove(self, name: ServiceName) -> None:
        """Forget one service; the file goes with the last."""
        rest = {recorded: record for recorded, record in self.read().items() if recorded != name}
        if rest:
            self._write(rest)
        else:
            self.path.unlink(missing_ok=True)

    def _write(self, services: dict[ServiceName, ServiceRecord]) -> None:
        entries = {}
        for name, record in services.items():
            entries[name] = dataclasses.asdict(record)
            del entries[name]["name"]
        text = json.dumps({"version": _VERSION, "services": entries}, indent=2) + "\n"
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".state-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _unreadable(self, reason: object) -> LocalServiceError:
        return LocalServiceError(
            f"{self.path} cannot be understood ({reason}): make sure that no service runs from its folder, "
            "then delete the file"
        )


def _record(name: ServiceName, entry: dict[str, object]) -> ServiceRecord:
    process = entry.pop("process", None)
    return ServiceRecord(
        name=name,
        process=ProcessIdentity(**process) if isinstance(process, dict) else None,
        **entry,  # type: ignore[arg-type]  # a wrong file is reported as a whole by the caller
    )


@contextlib.contextmanager
def exclusive(root: Path, *, timeout_s: float = 900.0) -> Iterator[None]:
    """Hold the folder's lock: one ``up`` or ``down`` at a time, on this machine.

    The kernel lets go of it when its holder dies, so it is never stale. ``timeout_s`` is longer than a first start
    with a download takes.

    Raises:
        LocalServiceError: nothing can be written there, or somebody else holds the lock for too long.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = FileLock(root / "lock", timeout=timeout_s).acquire()
    except Timeout as error:
        raise LocalServiceError(
            f"another el4ner process has been starting or stopping services in {root} for {timeout_s:.0f} s: "
            "end it, then try again"
        ) from error
    except OSError as error:
        raise LocalServiceError(
            f"{root}: cannot be written: {error.strerror}: name another folder by --root"
        ) from error
    with held:
        yield
