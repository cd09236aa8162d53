"""``el4ner ui``: the page, until a signal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli.ended_by_stdin import end_with_stdin
from workers.cli.options import ConfigOption, examples, refuse_unwritable
from workers.cli.output import tell
from workers.cli.port_file import write_port
from workers.cli.settings import stream_settings, worker_logging
from workers.exit_status import exit_status

__all__ = ["EXAMPLES", "ui"]

EXAMPLES = examples(
    "el4ner ui",
    "EL4NER_UI__SERVE_URL=http://127.0.0.1:8088 el4ner ui",
    "EL4NER_UI__READER_TOKEN=$(openssl rand -hex 32) el4ner ui --host 0.0.0.0",
)


def ui(
    ctx: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen there. (default: the file's, or 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: a free one. (default: the file's, or 8090)")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The port is written there as soon as the page is answered.")
    ] = None,
    config: ConfigOption = None,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Serve a page that shows the stream: documents as they come, trends, dead letters, health. Until Ctrl-C.

    Needs el4ner[ui], and Kafka; it loads no models. The page reads along and takes nothing from anybody. On any address
    but this machine's own it takes a token, or a proxy that says who asks. Logs go to standard error.
    """
    refuse_unwritable("--ready-file", ready_file)
    given = {"host": host, "port": port}
    chosen = {key: value for key, value in given.items() if value is not None}
    overrides: dict[str, Any] = {"ui": chosen} if chosen else {}
    settings = stream_settings(ctx, config, overrides)
    settings = settings.model_copy(update={"worker": worker_logging(ctx, settings.worker)})
    if until_stdin_closes:
        end_with_stdin(settings.worker.shutdown_seconds)

    from workers.shutdown.watchdog import Watchdog
    from workers.telemetry.logs import configure_logging
    from workers.ui.page_service import PageCrashedError, run_page

    configure_logging(settings.worker)

    def ready(port: int) -> None:
        tell(f"the page is at {settings.ui.url_at(port)}")
        if ready_file is not None:
            write_port(ready_file, port)

    try:
        run_page(
            settings,
            ready=ready,
            watchdog=Watchdog() if ctx.obj.owns_process else None,
            status_of=exit_status,
        )
    except PageCrashedError as error:
        logging.getLogger(__name__).critical("%s", error, extra={"code": error.code})
        raise typer.Exit(1) from error
