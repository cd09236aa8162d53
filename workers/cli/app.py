"""The root command: global options, errors as lines, exit codes."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from el4ner.engines.torch.lean_transformers import leave_out_unused_parts
from el4ner.errors import El4nerError
from workers.cli import (
    calibrate,
    demo,
    dlq,
    entities,
    evaluate,
    local,
    models,
    pool,
    produce,
    redact,
    schemas,
    serve,
    tag,
    tail,
    topics,
    ui,
    worker,
)
from workers.cli.command_extras import command_explained
from workers.cli.options import ConfigOption, LogFormat, LogLevel
from workers.cli.output import complain
from workers.cli.settings import GlobalOptions, prepare_process
from workers.cli.standard_output import OutputError, discard_results, flush_results, prepare_standard_streams
from workers.exit_status import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_INTERRUPTED, exit_status
from workers.printable import escaped

__all__ = ["app", "main"]

_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
"""The base of what is raised about a wrong command line: click's, which newer versions of typer bring themselves."""


class ErrorsAsLines(TyperGroup):
    """Says what went wrong in a line or a few, and ends with the exit code that fits. Only bugs show a traceback."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except _UsageError as error:
            error.message = escaped(error.message)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                flush_results()
        except _UsageError as error:  # a wrong option or argument: what was typed is shown
            error.message = escaped(error.message)
            raise
        except OutputError as error:
            discard_results()
            complain(str(error))
            raise typer.Exit(EXIT_FAILED) from error
        except El4nerError as error:
            complain(str(error))
            raise typer.Exit(exit_status(error)) from error
        except ModuleNotFoundError as error:
            if (explained := command_explained(ctx.invoked_subcommand, error)) is None:
                raise
            complain(str(explained))
            raise typer.Exit(exit_status(explained)) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except BrokenPipeError as error:
            discard_results()
            raise typer.Exit(EXIT_BROKEN_PIPE) from error


app = typer.Typer(
    name="el4ner",
    cls=ErrorsAsLines,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Mark the named entities in text, with an ensemble of small language models: here, or in a stream on Kafka.",
    epilog="Exit codes: 0 done; 1 some of the work failed; 2 wrong use, configuration, pool or model; 130 Ctrl-C.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"el4ner {metadata.version('el4ner')}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    *,
    config: ConfigOption = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="Least severity that is logged. (default: warning; services: the file's)")
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How it is logged. (default: console; services: the file's)")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version
    prepare_process()
    ctx.obj = GlobalOptions(
        config=config, log_level=log_level, log_format=log_format, owns_process=ctx.obj is _OWN_PROCESS
    )


for group in (topics.app, dlq.app, schemas.app, pool.app, models.app, local.app, redact.app, entities.app):
    app.add_typer(group)
app.command("tag", epilog=tag.EXAMPLES)(tag.tag)
app.command("eval", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("worker", epilog=worker.EXAMPLES)(worker.worker)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.command("ui", epilog=ui.EXAMPLES)(ui.ui)
app.command("produce", cls=produce.ProduceCommand, epilog=produce.EXAMPLES)(produce.produce)
app.command("tail", epilog=tail.EXAMPLES)(tail.tail)


_OWN_PROCESS: Final = object()


def main() -> None:
    """Run ``el4ner``: what holds for a whole process is done here, and not where a command is called in another's."""
    prepare_standard_streams()
    leave_out_unused_parts()
    try:
        app(prog_name="el4ner", obj=_OWN_PROCESS)
    except OutputError as error:  # of --help and --version, before any command
        discard_results()
        complain(str(error))
        sys.exit(EXIT_FAILED)
