"""``el4ner topics``: create and look at the topics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.options import ConfigOption, OutputFormat, examples
from workers.cli.output import complain, results, table
from workers.cli.settings import configure_cli_logging, stream_settings

if TYPE_CHECKING:
    from workers.topics import TopicReport

__all__ = ["app"]

app = typer.Typer(
    name="topics",
    no_args_is_help=True,
    help="Create and check the stream's topics.",
    epilog=examples("el4ner topics create", "EL4NER_KAFKA__PARTITIONS=12 el4ner topics create"),
)

FormatOption = Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")]


@app.command("create")
def create(ctx: typer.Context, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None) -> None:
    """Create the topics that are missing; leave those that exist as they are. Exit code 1 if one does not fit."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from workers import topics

    _show(topics.create(settings), output)


@app.command("describe")
def describe(ctx: typer.Context, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None) -> None:
    """Show every topic and what is wrong with it. Exit code 1 if something is."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from workers import topics

    _show(topics.describe(settings), output)


def _show(reports: list[TopicReport], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        from el4ner.serialize import dumps

        for report in reports:
            line = {
                "name": report.plan.name,
                "exists": report.exists,
                "partitions": report.partitions,
                "replication": report.replication,
                "configs": dict(report.configs or {}),
                "problems": list(report.problems),
            }
            sys.stdout.write(dumps(line).decode() + "\n")
    else:
        shown = table("topic", "partitions", "replication", "settings", "state")
        for report in reports:
            state = "ok" if not report.problems else "wrong" if report.exists else "missing"
            configs = ", ".join(f"{key}={value}" for key, value in (report.configs or {}).items())
            shown.add_row(report.plan.name, str(report.partitions), str(report.replication), configs, state)
        results().print(shown)
    problems = [problem for report in reports for problem in report.problems]
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)
