"""PostgreSQL as processes of this machine, thrown away at the end, for the example and its test."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from examples.local_stream import ExampleError
from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import log_excerpt

__all__ = ["Database", "postgresql_programs"]

_OWNER: Final = "el4ner"
_SUPERUSER_OF_THE_MACHINE: Final = 0


def postgresql_programs() -> Path | None:
    """The newest folder with PostgreSQL's server programs: Debian's, or of the ``PATH``. None: there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """Where a database is, and whose it is."""

    host: str
    port: int
    name: str
    user: str
    password: str

    @property
    def environ(self) -> dict[str, str]:
        """For ``psql`` and every other program of libpq."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.name,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
        }

    @property
    def jdbc_url(self) -> str:
        """For the connector."""
        return f"jdbc:postgresql://{self.host}:{self.port}/{self.name}"

    def psql(self, *arguments: str, script: str | None = None) -> str:
        """What ``psql`` prints for ``arguments``, and for ``script`` as its input. Raises ``ExampleError``."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments],
            env={**os.environ, **self.environ},
            input=script or "",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise ExampleError(f"psql: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, by the names of its columns."""
        answer = self.psql("-At", script=f"SELECT coalesce(json_agg(row), '[]') FROM ({query}) AS row")
        found: list[dict[str, Any]] = json.loads(answer)
        return found

    @classmethod
    def named_by(cls, environ: Mapping[str, str]) -> Database | None:
        """The one that libpq's variables name; None if they name none."""
        if not environ.get("PGHOST"):
            return None
        user = environ.get("PGUSER") or "postgres"
        return cls(
            host=environ["PGHOST"],
            port=int(environ.get("PGPORT") or 5432),
            name=environ.get("PGDATABASE") or user,
            user=user,
            password=environ.get("PGPASSWORD", ""),
        )

    @classmethod
    @contextlib.contextmanager
    def temporary(cls) -> Iterator[Database]:
        """PostgreSQL on a free port of the loopback address, with an empty database.

        PostgreSQL does not run as root; if this process does, it runs as ``postgres``, whom Debian's package makes.
        """
        programs = postgresql_programs()
        if programs is None or shutil.which("psql") is None:
            raise ExampleError("PostgreSQL is not on this machine: install it, for example apt-get install postgresql")
        user = "postgres" if os.geteuid() == _SUPERUSER_OF_THE_MACHINE else None
        # Not below a folder of the caller's, which that user may have no right to enter.
        with tempfile.TemporaryDirectory(prefix="el4ner-postgresql-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            database = cls(
                host=LOOPBACK, port=choose_port(), name=_OWNER, user=_OWNER, password=secrets.token_urlsafe()
            )
            (folder / "password").write_text(database.password)
            if user is not None:
                for path in (folder, folder / "password"):
                    shutil.chown(path, user, user)

            def run(program: str, *arguments: str) -> None:
                _run([str(programs / program), *arguments], folder, user)

            run("initdb", "-D", "data", "-U", _OWNER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
                "-A", "scram-sha-256", "--pwfile=password")  # fmt: skip
            # Durable it need not be.
            options = f"-p {database.port} -c listen_addresses={LOOPBACK} -c unix_socket_directories= -c fsync=off"
            run("pg_ctl", "-D", "data", "-w", "-l", "postgresql.log", "-o", options, "start")
            try:
                dataclasses.replace(database, name="postgres").psql("-c", f"CREATE DATABASE {_OWNER}")
                yield database
            finally:
                run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")


def _run(command: Sequence[str], folder: Path, user: str | None) -> None:
    # pg_ctl hands its streams on to the server, which outlives it: a pipe would be waited for.
    with (folder / "programs.log").open("ab") as output:
        done = subprocess.run(
            command,
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
    if done.returncode != 0:
        raise ExampleError(
            f"{Path(command[0]).name}: {log_excerpt([folder / 'postgresql.log', folder / 'programs.log'])}"
        )
