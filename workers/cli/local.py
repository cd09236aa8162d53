"""``el4ner local``: Kafka and a Redis-compatible cache on this machine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from workers.cli.options import examples
from workers.cli.output import results, table, tell

__all__ = ["app"]

app = typer.Typer(
    name="local",
    no_args_is_help=True,
    help="Start and stop Kafka and a Redis-compatible cache on this machine, for development.",
    epilog=examples('eval "$(el4ner local up)"', "el4ner local status", "el4ner local down"),
)

RootOption = Annotated[
    Path, typer.Option("--root", metavar="FOLDER", help="Where they keep data and logs; two folders are two sets.")
]
_ROOT = Path(".el4ner")


@app.command("up")
def up(*, root: RootOption = _ROOT) -> None:
    """Start what does not run yet, wait until it answers, and print the variables that lead el4ner there.

    KAFKA_BOOTSTRAP_SERVERS and REDIS_URL, where set, are used instead. Without Java or Maven, but with a Docker engine,
    the services come from the compose file.
    """
    from workers.local import services

    running = services.up(root, environ=os.environ, progress=tell)
    for name, value in running.environ().items():
        results().print(f"export {name}={shlex.quote(value)}")


@app.command("status")
def status(*, root: RootOption = _ROOT) -> None:
    """Show what runs, where, and who provides it. Exit code 1 if something does not run."""
    from workers.local import services

    states = services.status(root, environ=os.environ)
    shown = table("service", "state", "provider", "address", "pid")
    for service in states:
        shown.add_row(
            service.name, service.state, service.provider or "-", service.address or "-", str(service.pid or "-")
        )
    results().print(shown)
    if any(service.state != "running" for service in states):
        raise typer.Exit(1)


@app.command("down")
def down(*, root: RootOption = _ROOT) -> None:
    """Stop what `local up` started, by its pid, and nothing else. Data stays."""
    from workers.local import services

    stopped = services.down(root)
    for line in stopped:
        results().print(f"stopped {line}")
    if not stopped:
        tell("nothing runs here")
