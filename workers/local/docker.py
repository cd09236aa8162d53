"""The same services from Docker, where this machine cannot run them itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.local.processes import run_to_end
from workers.local.service_error import LocalServiceError
from workers.local.state import ServiceName, ServiceRecord

__all__ = ["CommandResult", "DockerCompose", "Runner", "run_command"]

# Where docker/compose.yaml publishes them, and the variable by which it can be told otherwise.
_PORTS: Mapping[ServiceName, tuple[str, int]] = {
    "kafka": ("EL4NER_KAFKA_PORT", 9092),
    "redis": ("EL4NER_REDIS_PORT", 6379),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """How a command ended; ``output`` is both its streams."""

    code: int
    output: str


Runner = Callable[[Sequence[str], Mapping[str, str], float], CommandResult]
"""Runs a command in an environment with a time limit in seconds. Never raises: a command that is missing or too
slow ends with a code that is not 0."""


def run_command(argv: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> CommandResult:
    """The :data:`Runner` that runs."""
    try:
        done = run_to_end(argv, environ=environ, timeout_s=timeout_s)
    except OSError as error:
        return CommandResult(code=127, output=str(error))
    except subprocess.TimeoutExpired:
        return CommandResult(code=124, output=f"no answer within {timeout_s:.0f} s")
    return CommandResult(code=done.returncode, output=done.stdout)


class DockerCompose:
    """The ``kafka`` and ``redis`` services of ``docker/compose.yaml``.

    ``compose_file`` None means the one of this checkout; an installed wheel has none, and :meth:`up` says so.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        compose_file: Path | None = None,
        runner: Runner = run_command,
    ) -> None:
        self._environ = environ
        self._file = compose_file or Path(__file__).parents[2] / "docker" / "compose.yaml"
        self._run = runner

    def engine_answers(self) -> bool:
        """Whether a Docker engine can be reached, asked for at most 10 s."""
        # The client alone is no engine: `docker info` fails without one, `docker --version` does not.
        return self._run(["docker", "info", "--format", "{{.ServerVersion}}"], self._environ, 10).code == 0

    def up(self, names: Sequence[ServiceName]) -> list[ServiceRecord]:
        """Start the services and wait until they are healthy; images are pulled if they have to be."""
        if not self._file.is_file():
            raise LocalServiceError(
                f"{self._file} is not there, so Docker cannot start {' and '.join(names)}: run this from a checkout of "
                "el4ner, or start them yourself and set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL"
            )
        self._compose("up", "--detach", "--wait", *names, timeout_s=900)
        return [ServiceRecord(name=name, provider="docker", host="127.0.0.1", port=self._port(name)) for name in names]

    def stop(self, names: Sequence[ServiceName]) -> None:
        """Stop the services; containers and data stay."""
        self._compose("stop", *names, timeout_s=120)

    def _compose(self, *arguments: str, timeout_s: float) -> None:
        result = self._run(["docker", "compose", "-f", str(self._file), *arguments], self._environ, timeout_s)
        if result.code != 0:
            last_lines = " | ".join(line.strip() for line in result.output.splitlines()[-4:] if line.strip())
            raise LocalServiceError(
                f"docker compose {' '.join(arguments)} failed: {last_lines or 'it said nothing'} — "
                f"see docker compose -f {self._file} logs"
            )

    def _port(self, name: ServiceName) -> int:
        variable, default = _PORTS[name]
        given = self._environ.get(variable) or str(default)
        if not given.isdigit():
            raise LocalServiceError(f"{variable}={given!r} is no port: give a number or unset it")
        return int(given)
