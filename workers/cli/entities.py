"""``el4ner entities``: the entities of all documents, and merging and splitting them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.options import ConfigOption, OutputFormat, examples
from workers.cli.output import results, table, tell
from workers.cli.pool_topic import teacher_here
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from el4ner.canonical.decisions import EntityDecision
    from workers.config import KafkaSettings

__all__ = ["app"]

app = typer.Typer(
    name="entities",
    no_args_is_help=True,
    help="Show the entities of all documents, and merge and split them. `el4ner worker entities` gathers them.",
    epilog=examples(
        "el4ner entities list --type person --like merkel",
        "el4ner entities merge 161b2dea 9d84c6e1",
        'el4ner entities split 161b2dea "Una Merkel"',
    ),
)

FormatOption = Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who decides. (default: this user's name)", show_default=False),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="An entity's id, or its first four digits or more.")]


@app.command("list")
def list_entities(
    ctx: typer.Context,
    *,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only those of this type.")] = None,
    like: Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with a spelling that has it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    output: FormatOption = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Show entities, the most frequent first. Reads all of the topic entities."""
    configure_cli_logging(ctx)
    from workers.entities.entity_topic import entities_until_now, searched_spellings

    known = entities_until_now(stream_settings(ctx, config).kafka).all()
    wanted = None if like is None else like.casefold()
    chosen = [
        value
        for value in known
        if (type_ is None or value["type"] == type_) and (wanted is None or wanted in searched_spellings(value))
    ]
    if output is OutputFormat.JSON:
        _json_lines(chosen[:limit])
    else:
        shown = table("id", "type", "name", "mentions", "last seen")
        for value in chosen[:limit]:
            shown.add_row(value["id"], value["type"], value["name"], str(value["mentions"]), value["last_seen"])
        results().print(shown)
    if len(chosen) > limit:
        tell(f"{len(chosen) - limit} more: --limit")


@app.command("show")
def show(
    ctx: typer.Context, entity: IdArgument, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None
) -> None:
    """Show all that is known of an entity; of a name that is another one, that one."""
    configure_cli_logging(ctx)
    from workers.entities.entity_topic import entities_until_now

    value = entities_until_now(stream_settings(ctx, config).kafka).entity(entity)
    if output is OutputFormat.JSON:
        _json_lines([value])
        return
    shown = table("what", "is")
    shown.add_row("id", value["id"])
    shown.add_row("type", value["type"])
    shown.add_row("name", value["name"])
    shown.add_row("spellings", "; ".join(value["aliases"]))
    shown.add_row("joined names", "; ".join(f"{each['name']} ({each['id']})" for each in value["names"]))
    shown.add_row("first seen", value["first_seen"])
    shown.add_row("last seen", value["last_seen"])
    for window in value["windows"]:
        shown.add_row(window["start"], f"{window['mentions']} mentions in {window['documents']} documents")
    results().print(shown)


@app.command("merge")
def merge(
    ctx: typer.Context,
    kept: Annotated[str, typer.Argument(metavar="ID", help="The entity that it will be.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The entity that is to be part of it.")],
    *,
    by: ByOption = None,
    config: ConfigOption = None,
) -> None:
    """Say that two entities are one. Both have to be of one type. `split` takes it back."""
    configure_cli_logging(ctx)
    from workers.entities.entity_topic import decisions_until_now, entities_until_now

    kafka = stream_settings(ctx, config).kafka
    kind, name, into = entities_until_now(kafka).merge(kept, other)
    _decide(kafka, (kind, name), into, by, decisions_until_now(kafka))
    tell(f"{kind} {name!r} is {into!r} from now on")


@app.command("split")
def split(
    ctx: typer.Context,
    entity: IdArgument,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="A name that is joined in it, or its id's beginning.")],
    *,
    by: ByOption = None,
    config: ConfigOption = None,
) -> None:
    """Say that a name that is joined in an entity is one of its own."""
    configure_cli_logging(ctx)
    from workers.entities.entity_topic import decisions_until_now, entities_until_now

    kafka = stream_settings(ctx, config).kafka
    decisions = decisions_until_now(kafka)
    kind, name = entities_until_now(kafka).split(entity, alias, decisions)
    _decide(kafka, (kind, name), None, by, decisions)
    tell(f"{kind} {name!r} is an entity of its own from now on")


@app.command("log")
def log(ctx: typer.Context, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None) -> None:
    """Show what was decided, by whom and when, the first first."""
    configure_cli_logging(ctx)
    from workers.cli.moments import shown_moment
    from workers.entities.entity_messages import decision_to_json
    from workers.entities.entity_topic import decisions_until_now

    decisions = decisions_until_now(stream_settings(ctx, config).kafka)
    if output is OutputFormat.JSON:
        _json_lines(decision_to_json(decision) for decision in decisions)
        return
    shown = table("when", "who", "what", "type", "name", "into")
    for each in decisions:
        shown.add_row(shown_moment(each.at_ms), each.by, each.action, each.type, each.name, each.into or "")
    results().print(shown)


def _decide(
    kafka: KafkaSettings, subject: tuple[str, str], into: str | None, by: str | None, before: Iterable[EntityDecision]
) -> None:
    from workers.entities.entity_topic import decide

    who = teacher_here() if by is None else by
    decide(kafka, subject, into, by=who, before=before, now_ms=time.time_ns() // 1_000_000, random=os.urandom)


def _json_lines(values: Iterable[Mapping[str, Any]]) -> None:
    from el4ner.serialize import dumps

    for value in values:
        results_file().write(dumps(value).decode() + "\n")
