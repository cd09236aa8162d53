"""``el4ner serve``: the tagger as an HTTP service, until a signal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli.options import ConfigOption, EnsembleOption, examples, refuse_unwritable
from workers.cli.port_file import write_port
from workers.cli.settings import overrides_of, stream_settings, work_offline_if_local, worker_logging
from workers.exit_status import exit_status

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = examples(
    "el4ner serve",
    'curl -s localhost:8088/v1/tag --json \'{"texts": ["Ada Lovelace met Charles Babbage in London."]}\'',
    "EL4NER_SERVE__TOKEN=$(openssl rand -hex 32) el4ner serve --host 0.0.0.0",
)


def serve(
    ctx: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen there. (default: the file's, or 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: a free one. (default: the file's, or 8088)")
    ] = None,
    ensemble: EnsembleOption = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The port is written there as soon as requests are accepted.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Answer POST /v1/tag with tagged documents, until SIGTERM or Ctrl-C: then what was accepted is answered.

    Needs el4ner[serve], and no Kafka. Texts of several requests are asked together; what is too much is refused with
    429. On any address but this machine's own it takes a token (serve.token). Logs go to standard error.
    """
    refuse_unwritable("--ready-file", ready_file)
    overrides: dict[str, Any] = overrides_of(ensemble=ensemble)
    given = {"host": host, "port": port}
    if chosen := {key: value for key, value in given.items() if value is not None}:
        overrides["serve"] = chosen
    settings = stream_settings(ctx, config, overrides)
    settings = settings.model_copy(update={"worker": worker_logging(ctx, settings.worker)})
    work_offline_if_local(settings)

    from workers.serve.service import ServiceCrashedError, run_service
    from workers.shutdown.watchdog import Watchdog
    from workers.telemetry.logs import configure_logging

    configure_logging(settings.worker)
    try:
        run_service(
            settings,
            ready=None if ready_file is None else lambda port: write_port(ready_file, port),
            # It stays for as long as our process lasts: what hangs at the interpreter's exit is ended, too.
            watchdog=Watchdog() if ctx.obj.owns_process else None,
            status_of=exit_status,
        )
    except ServiceCrashedError as error:
        logging.getLogger(__name__).critical("%s", error, extra={"code": error.code})
        raise typer.Exit(1) from error
