"""The facade: start, look at and stop the services that el4ner needs.

    environment    ``KAFKA_BOOTSTRAP_SERVERS`` / ``REDIS_URL`` name one: it is used, never started or stopped
    local          a process of ours on this machine, which outlives whoever started it
    docker         a container of ``docker/compose.yaml``, where this machine lacks what a process needs

Everything is under one folder, ``root``, ``.el4ner`` in the project by default: ``kafka/``, ``valkey/``,
``state.json``. Two folders are two independent sets of services.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from workers.local.docker import DockerCompose
from workers.local.kafka_server import KafkaServer
from workers.local.ports import accepts_connections
from workers.local.processes import is_running, stop
from workers.local.server import LocalServer, Progress, no_progress
from workers.local.service_error import LocalServiceError
from workers.local.state import Provider, ServiceName, ServiceRecord, StateFile, exclusive
from workers.local.valkey_server import ValkeyServer

__all__ = [
    "ServiceStatus",
    "Services",
    "down",
    "status",
    "temporary_services",
    "up",
]

_NAMES: tuple[ServiceName, ...] = ("kafka", "redis")
_VARIABLES: Mapping[ServiceName, str] = {"kafka": "KAFKA_BOOTSTRAP_SERVERS", "redis": "REDIS_URL"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Where the services are, and who provides each."""

    kafka_bootstrap: str
    redis_url: str
    kafka_provider: Provider
    redis_provider: Provider

    def environ(self) -> dict[str, str]:
        """The variables that point any other el4ner process to these services."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap, "REDIS_URL": self.redis_url}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceStatus:
    """One service as it is now.

    ``state``: ``running`` (it accepts connections), ``unreachable`` (it should, but does not), ``stopped``.
    ``provider`` and ``address`` are None when it is stopped; ``pid`` is given for local ones only.
    """

    name: ServiceName
    state: Literal["running", "unreachable", "stopped"]
    provider: Provider | None
    address: str | None
    pid: int | None


def up(
    root: Path,
    *,
    environ: Mapping[str, str],
    progress: Progress = no_progress,
    docker: DockerCompose | None = None,
) -> Services:
    """See to it that Kafka and Redis answer, and say where.

    What runs already is left as it is, so calling it again changes nothing. Calls at the same time on one ``root``
    wait for each other. If it raises (``LocalServiceError``), what this call started is stopped again.
    """
    docker = docker or DockerCompose(environ=environ)
    addresses = _from_environment(environ)
    wanted = [name for name in _NAMES if name not in addresses]
    records = _up(root, wanted, environ=environ, progress=progress, docker=docker) if wanted else {}
    return _services(addresses, records)


def status(root: Path, *, environ: Mapping[str, str]) -> list[ServiceStatus]:
    """Kafka and Redis as they are now, in this order. Changes nothing and does not wait for an ``up`` in progress."""
    addresses = _from_environment(environ)
    records = StateFile(root).read()
    return [_status(name, addresses.get(name), records.get(name)) for name in _NAMES]


def down(
    root: Path,
    *,
    environ: Mapping[str, str] | None = None,
    docker: DockerCompose | None = None,
) -> list[str]:
    """Stop what was started under ``root`` and nothing else; returns one line for each that was stopped.

    Data stays, and so do services that the environment names. What is recorded but runs no more (a reboot, a
    ``kill -9``) is forgotten.
    """
    if not root.is_dir():
        return []
    environ = os.environ if environ is None else environ
    docker = docker or DockerCompose(environ=environ)
    with exclusive(root):
        state = StateFile(root)
        # Every one is tried, whatever happens to the other; the first error is raised at the end.
        stopped: list[str] = []
        errors: list[LocalServiceError] = []
        for name, record in state.read().items():
            try:
                if line := _stop(record, docker):
                    stopped.append(line)
                state.remove(name)
            except LocalServiceError as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return stopped


@contextlib.contextmanager
def temporary_services(
    root: Path,
    *,
    environ: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Iterator[Services]:
    """Services of one's own for a test or a demo: local processes on free ports, with their data under ``root``.

    They end with the ``with`` block, also by an exception; should this process die in any other way, by SIGKILL
    even, a guard process ends them. ``KAFKA_BOOTSTRAP_SERVERS`` and ``REDIS_URL`` are not heeded, so that nobody's
    real broker is written to, and Docker is not used. ``root`` is left to the caller to delete.
    """
    environ = os.environ if environ is None else environ
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    with _guarded(root):
        try:
            records = _up(root, _NAMES, environ=environ, progress=progress, docker=None)
            yield _services({}, records)
        finally:
            down(root, environ=environ)


@contextlib.contextmanager
def _guarded(root: Path) -> Iterator[None]:
    """Have ``workers.local.service_guard`` call :func:`down` if this process dies inside the block.

    A process of its own, because nothing inside the dying one runs on SIGKILL, and because PR_SET_PDEATHSIG, which
    the kernel offers for this, is Linux's only and fires when the *thread* that started the child ends.
    """
    guard = subprocess.Popen(
        [sys.executable, "-m", "workers.local.service_guard", str(os.getpid()), str(root)],
        cwd=Path(__file__).parents[2],  # from where `-m` finds it, installed or not
        stdin=subprocess.PIPE,  # its end tells the guard that we are gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at the terminal is for us, not for the guard
    )
    try:
        yield
    finally:
        # By now everything is stopped: the guard sees the end of its input, finds nothing to do and ends.
        if guard.stdin is not None:
            guard.stdin.close()
        guard.wait(timeout=60)


def _up(
    root: Path,
    names: Sequence[ServiceName],
    *,
    environ: Mapping[str, str],
    progress: Progress,
    docker: DockerCompose | None,
) -> dict[ServiceName, ServiceRecord]:
    """The records of ``names``, every one answering."""
    with exclusive(root):
        _hide_from_git(root)
        state = StateFile(root)
        running = {name: record for name, record in state.read().items() if name in names}
        started: list[ServiceRecord] = []
        try:
            servers = {name: _server(name, root, environ, progress) for name in names}
            for name, record in list(running.items()):
                if record.provider == "local" and not _runs(record):
                    state.remove(name)
                    del running[name]
                elif record.provider == "docker" and not accepts_connections(record.host, record.port):
                    del running[name]
            lacking = [name for name in names if name not in running]
            local, contained = _share_out(lacking, servers, docker)
            # The processes are launched first and awaited afterwards, so that they start at the same time; the
            # quick one before the one whose preparation takes a while.
            for name in sorted(local, reverse=True):
                record = servers[name].launch()
                started.append(record)
                state.put(record)
            if contained and docker is not None:
                progress(f"starting {' and '.join(contained)} with Docker")
                for record in docker.up(contained):
                    started.append(record)
                    state.put(record)
            for record in [*running.values(), *started]:
                if record.provider == "local":
                    servers[record.name].wait_ready(record)
        except BaseException:
            for record in started:
                with contextlib.suppress(LocalServiceError):
                    _stop(record, docker)
                    state.remove(record.name)
            raise
        return running | {record.name: record for record in started}


def _share_out(
    names: Sequence[ServiceName], servers: Mapping[ServiceName, LocalServer], docker: DockerCompose | None
) -> tuple[list[ServiceName], list[ServiceName]]:
    """Which of ``names`` run as processes and which in Docker."""
    missing = {name: lacks for name in names if (lacks := servers[name].missing())}
    if missing and (docker is None or not docker.engine_answers()):
        needs = "; ".join(f"{servers[name].title} needs {' and '.join(lacks)}" for name, lacks in missing.items())
        variables = " and ".join(_VARIABLES[name] for name in missing)
        raise LocalServiceError(f"{needs}: install that, or start a Docker engine, or set {variables} to one that runs")
    return [name for name in names if name not in missing], list(missing)


def _server(name: ServiceName, root: Path, environ: Mapping[str, str], progress: Progress) -> LocalServer:
    if name == "kafka":
        return KafkaServer(root / "kafka", environ=environ, progress=progress)
    return ValkeyServer(root / "valkey", environ=environ, progress=progress)


def _runs(record: ServiceRecord) -> bool:
    """Whether exactly the recorded process still runs; False for what a reboot or a kill left behind."""
    return record.process is not None and is_running(record.process)


def _stop(record: ServiceRecord, docker: DockerCompose | None) -> str | None:
    """What was stopped, in words; None if it was gone already."""
    if record.provider == "docker":
        if docker is not None:
            docker.stop([record.name])
        return f"{record.name} (docker, {record.address})"
    if record.process is None or not stop(record.process):
        return None
    return f"{record.name} (pid {record.process.pid}, {record.address})"


def _status(name: ServiceName, address: str | None, record: ServiceRecord | None) -> ServiceStatus:
    if address is not None:
        reached = any(accepts_connections(host, port) for host, port in _endpoints(name, address))
        return ServiceStatus(
            name=name,
            state="running" if reached else "unreachable",
            provider="environment",
            address=address,
            pid=None,
        )
    if record is None or (record.provider == "local" and not _runs(record)):
        return ServiceStatus(name=name, state="stopped", provider=None, address=None, pid=None)
    return ServiceStatus(
        name=name,
        state="running" if accepts_connections(record.host, record.port) else "unreachable",
        provider=record.provider,
        address=record.address,
        pid=None if record.process is None else record.process.pid,
    )


def _endpoints(name: ServiceName, address: str) -> list[tuple[str, int]]:
    """The host-port pairs of a bootstrap list or of a URL; none if they cannot be told (a Unix socket, say)."""
    default = 9092 if name == "kafka" else 6379
    endpoints = []
    for part in address.split(",") if name == "kafka" else [address]:
        with contextlib.suppress(ValueError):
            url = urlsplit(part.strip() if "://" in part else f"//{part.strip()}")
            if url.hostname:
                endpoints.append((url.hostname, url.port or default))
    return endpoints


def _from_environment(environ: Mapping[str, str]) -> dict[ServiceName, str]:
    return {name: value for name, variable in _VARIABLES.items() if (value := environ.get(variable, "").strip())}


def _services(addresses: Mapping[ServiceName, str], records: Mapping[ServiceName, ServiceRecord]) -> Services:
    return Services(
        kafka_bootstrap=addresses["kafka"] if "kafka" in addresses else records["kafka"].address,
        redis_url=addresses["redis"] if "redis" in addresses else records["redis"].address,
        kafka_provider="environment" if "kafka" in addresses else records["kafka"].provider,
        redis_provider="environment" if "redis" in addresses else records["redis"].provider,
    )


def _hide_from_git(root: Path) -> None:
    """Keep logs and data out of commits."""
    ignore = root / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
