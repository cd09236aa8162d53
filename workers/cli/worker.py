"""``el4ner worker``: stages of the stream, until a signal."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workers.cli.begun_early import import_and_wait
from workers.cli.ended_by_stdin import end_with_stdin
from workers.cli.options import ConfigOption, EnsembleOption, examples
from workers.cli.settings import overrides_of, stream_settings, work_offline_if_local, worker_logging
from workers.exit_status import exit_status
from workers.roles import COMBINE, ENTITIES, PIPELINE, REDACT, STAGED_ROLES

__all__ = ["EXAMPLES", "worker"]

EXAMPLES = examples(
    "el4ner worker all",
    "el4ner worker pipeline",
    "el4ner worker classify validate --health-port 8081",
    "KAFKA_BOOTSTRAP_SERVERS=broker:9092 REDIS_URL=redis://cache:6379/0 el4ner worker extract",
)


class RoleChoice(StrEnum):
    """What to run: :data:`workers.roles.ROLES`, and ``all``."""

    EXTRACT = "extract"
    CLASSIFY = "classify"
    VALIDATE = "validate"
    AGGREGATE = "aggregate"
    COMBINE = "combine"
    PIPELINE = "pipeline"
    REDACT = "redact"
    ENTITIES = "entities"
    ALL = "all"


def worker(
    ctx: typer.Context,
    stages: Annotated[
        list[RoleChoice],
        typer.Argument(
            metavar="STAGE...|all|pipeline",
            help=f"{', '.join(STAGED_ROLES)}; {COMBINE}; {PIPELINE}; {REDACT}; {ENTITIES}.",
        ),
    ],
    *,
    ensemble: EnsembleOption = None,
    health_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Answer GET /healthz there. (default: the file's, or none)")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Written as soon as every stage has its partitions.")
    ] = None,
    config: ConfigOption = None,
    environment_from_stdin: Annotated[bool, typer.Option("--environment-from-stdin", hidden=True)] = False,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Run stages of the stream in this process, until SIGTERM or Ctrl-C: then what was begun is finished.

    Stages in one process share one set of loaded models. The aggregator alone loads none. Start as many processes of
    a stage as there are partitions. Logs go to standard error: for people on a terminal, elsewhere as JSON lines.

    pipeline is all of them in one hop: documents in, tagged documents out, in one transaction with the offset, and
    no topic in between.

    Where worker.members gives processes different members of the ensemble, combine makes one answer of theirs; it is
    not among all.

    redact writes what tagged-documents has to redacted-documents, without names: [redaction] says which.

    entities gathers what tagged-documents has on entities and entity-trends: [entities] says for how long.
    """
    settings = stream_settings(ctx, config, overrides_of(ensemble=ensemble))
    if environment_from_stdin:
        work_offline_if_local(settings)
        import_and_wait(settings)
        settings = stream_settings(ctx, config, overrides_of(ensemble=ensemble))
    update = worker_logging(ctx, settings.worker)
    if health_port is not None:
        update = update.model_copy(update={"web_port": health_port})
    settings = settings.model_copy(update={"worker": update})
    work_offline_if_local(settings)
    if until_stdin_closes:
        end_with_stdin(settings.worker.shutdown_seconds)

    from workers.run import WorkerCrashedError, run_workers
    from workers.shutdown.watchdog import Watchdog
    from workers.telemetry.logs import configure_logging

    configure_logging(settings.worker)
    chosen = STAGED_ROLES if RoleChoice.ALL in stages else tuple(dict.fromkeys(stage.value for stage in stages))
    try:
        run_workers(
            settings,
            chosen,
            ready=None if ready_file is None else ready_file.touch,
            # It stays for as long as our process lasts: what hangs at the interpreter's exit is ended, too.
            watchdog=Watchdog() if ctx.obj.owns_process else None,
            status_of=exit_status,
        )
    except WorkerCrashedError as error:
        # A bug or an outage, and nobody looks at a terminal: the log has everything.
        logging.getLogger(__name__).critical("%s", error, exc_info=error.__cause__, extra={"code": error.code})
        raise typer.Exit(1) from error
