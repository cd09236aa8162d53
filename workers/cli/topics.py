"""``el4ner topics``: create and look at the topics, and who needs which rights on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from el4ner.nearest import no_such
from workers.cli.options import ConfigOption, OutputFormat, examples
from workers.cli.output import complain, results, table
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.kafka.acls import Role
    from workers.topics import TopicReport

__all__ = ["app"]

app = typer.Typer(
    name="topics",
    no_args_is_help=True,
    help="Create and check the stream's topics.",
    epilog=examples(
        "el4ner topics create",
        "EL4NER_KAFKA__PARTITIONS=12 el4ner topics create",
        "el4ner topics acls --principal aggregate=User:joiner",
    ),
)

FormatOption = Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")]


@app.command("create")
def create(ctx: typer.Context, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None) -> None:
    """Create the topics that are missing; leave those that exist as they are. Exit code 1 if one does not fit."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from workers.kafka import topic_admin

    _show(topic_admin.create(settings), settings, output)


@app.command("describe")
def describe(ctx: typer.Context, *, output: FormatOption = OutputFormat.TEXT, config: ConfigOption = None) -> None:
    """Show every topic and what is wrong with it. Exit code 1 if something is."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from workers.kafka import topic_admin

    _show(topic_admin.describe(settings), settings, output)


@app.command("acls")
def acls(
    ctx: typer.Context,
    *,
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="Only this one's rights; may be repeated. (default: all)")
    ] = None,
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=User:NAME", help="Whom a role's rights are for. (default: User:<prefix>el4ner-<role>)"
        ),
    ] = None,
    reader_group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Consumer group of those who read the results.")
    ] = None,
    output: FormatOption = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Print the least rights that each part needs: as kafka-acls.sh commands, or JSON Lines. Asks no broker."""
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from workers.kafka.acls import Role, bindings, kafka_acls_commands

    named = dict(_pair(argument) for argument in principal or ())
    rights = bindings(
        settings.kafka,
        principals={_role(Role, name, "--principal"): who for name, who in named.items()},
        reader_group=reader_group,
        roles=[_role(Role, name, "--role") for name in role] if role else tuple(Role),
    )
    if output is OutputFormat.JSON:
        from el4ner.serialize import dumps

        lines = [dumps(acl.to_json()).decode() for acl in rights]
    else:
        lines = kafka_acls_commands(rights, settings.kafka.bootstrap_servers)
    results_file().write("".join(f"{line}\n" for line in lines))


def _pair(argument: str) -> tuple[str, str]:
    name, equals, who = argument.partition("=")
    if not equals:
        raise typer.BadParameter(f"expected ROLE=User:NAME, not {argument!r}", param_hint="--principal")
    return name, who


def _role(roles: type[Role], name: str, option: str) -> Role:
    try:
        return roles(name)
    except ValueError:
        raise typer.BadParameter(no_such("role", name, (role.value for role in roles)), param_hint=option) from None


def _show(reports: list[TopicReport], settings: StreamSettings, output: OutputFormat) -> None:
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
            results_file().write(dumps(line).decode() + "\n")
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
    from workers.kafka.size_limits import SizeLimits, shortage

    if (too_small := shortage(settings, SizeLimits.of(settings.kafka, reports))) is not None:
        complain(too_small)
    if problems:
        raise typer.Exit(1)
