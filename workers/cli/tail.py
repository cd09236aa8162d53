"""``el4ner tail``: tagged documents as they come out of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from workers.cli.entity_marks import EntityMark, marked
from workers.cli.options import ConfigOption, OutputFormat, examples
from workers.cli.output import complain, results
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.cli.standard_output import results_file
from workers.printable import legible

__all__ = ["EXAMPLES", "show_tagged", "tail"]

EXAMPLES = examples(
    "el4ner tail",
    "el4ner tail --from earliest --limit 10 --format json",
    "el4ner tail --format json | jq 'select(.status != \"complete\")'",
)


class From(StrEnum):
    """Where to begin."""

    EARLIEST = "earliest"
    LATEST = "latest"


def tail(
    ctx: typer.Context,
    *,
    start: Annotated[From, typer.Option("--from", help="What is there already too, or only what comes.")] = From.LATEST,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after N documents. (default: never)")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="End after S seconds. (default: never)")
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Show tagged documents live, entities coloured by type, until Ctrl-C. Reads along; takes nothing from anybody."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from el4ner.serialize import dumps
    from workers.tail import tail_documents

    console = results()
    tailed = tail_documents(
        settings,
        start="earliest" if start is From.EARLIEST else "latest",
        count=limit,
        seconds=seconds,
        unreadable=lambda error: complain(f"a message was passed over: {error}", severity="warning"),
    )
    for document in tailed:
        if output is OutputFormat.JSON:
            results_file().write(dumps(document.value).decode() + "\n")
            results_file().flush()
        else:
            show_tagged(document.value, console)


def show_tagged(value: Mapping[str, Any], console: Console, *, prefix: str = "") -> None:
    """A message of ``tagged-documents``: its id, what it lacks if it does, and its text with the entities marked."""
    line = Text.assemble((f"{prefix}{legible(value['id'])} ", "dim"))
    if value["status"] != "complete":
        error = value["error"]
        why = f": {error['stage']}: {error['code']}: {error['message']}" if error else ""
        missing = f", no answer from {', '.join(value['missing'])}" if value["missing"] and not why else ""
        line.append(f"({value['status']}{legible(why)}{missing}) ", "bold red")
    if value["text"] is not None:
        marks = [EntityMark(entity["start"], entity["end"], entity["type"]) for entity in value["entities"]]
        line.append_text(marked(value["text"], marks, console))
    console.print(line)
