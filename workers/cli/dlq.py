"""``el4ner dlq``: look at what the stages gave up on, and send it again."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workers.cli.dlq_display import (
    LetterCounts,
    messages,
    show_kinds,
    show_left_out,
    show_letter,
    show_plan,
    show_rows,
    shown_bytes,
    write_line,
)
from workers.cli.interrupts import interrupt_flag
from workers.cli.moments import parse_moment
from workers.cli.options import ConfigOption, OutputFormat, examples
from workers.cli.output import complain, tell
from workers.cli.progress import Counter
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.dead_letters.letters import Letter, ReplayPlan, Wanted
    from workers.dead_letters.replay import Replayed

__all__ = ["app"]

EXIT_NOTHING: Final = 1
_LISTED: Final = 50

app = typer.Typer(
    name="dlq",
    no_args_is_help=True,
    help="Dead letters: what the stages gave up on. List them, look at one, send them again.",
    epilog=examples(
        "el4ner dlq list --since 24h",
        "el4ner dlq show 3-17 --raw > message.json",
        "el4ner dlq replay --code document-too-long --rate 50 --journal replayed.jsonl --yes",
    ),
)

CodeOption = Annotated[
    list[str] | None, typer.Option("--code", metavar="CODE", help="Only with this error code. (repeatable)")
]
StageOption = Annotated[
    list[str] | None, typer.Option("--stage", metavar="STAGE", help="Only of this stage. (repeatable)")
]
DocumentOption = Annotated[
    list[str] | None, typer.Option("--document", metavar="ID", help="Only of this document. (repeatable)")
]
TopicOption = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="TOPIC", help="Only what came from this topic, without or with its prefix."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only written then or later: 30m, 2h, 7d (ago) or 2026-11-23T14:00 (UTC)."),
]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only written before then.")]
FormatOption = Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")]


@app.command("list", epilog=examples("el4ner dlq list --summary", "el4ner dlq list --code json --format json"))
def list_(
    ctx: typer.Context,
    *,
    code: CodeOption = None,
    stage: StageOption = None,
    document: DocumentOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"Only the latest N. (default: {_LISTED} as text, all as JSON)"),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only how many there are of each kind.")] = False,
    output: FormatOption = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """List dead letters and count them by stage and error code. Exit code 1 if there is none, as of grep."""
    settings = stream_settings(ctx, config)
    wanted = _wanted(settings, code, stage, document, topic, since, until)
    configure_cli_logging(ctx)
    from workers.dead_letters.listing import read_letters

    kinds: dict[tuple[str, str], LetterCounts] = {}

    def matching() -> Iterable[Letter]:
        for letter in read_letters(settings, since_ms=wanted.since_ms):
            if wanted.matches(letter):
                kinds.setdefault((letter.stage or "?", letter.code or "?"), LetterCounts()).add(letter)
                yield letter

    if output is OutputFormat.JSON and limit is None:
        for letter in matching():
            if not summary:
                write_line(letter.to_json())
    else:
        # The latest, without their values: letters may be of megabytes, and many.
        rows = heapq.nlargest(
            limit or _LISTED,
            ((each.timestamp_ms, each.coordinates, each.to_json()) for each in matching()),
            key=_written,
        )
        if not summary:
            show_rows([row for _, _, row in reversed(rows)], output, sum(kind.letters for kind in kinds.values()))
    if not kinds:
        complain("no dead letter matches", severity="warning")
        raise typer.Exit(EXIT_NOTHING)
    if summary or output is OutputFormat.TEXT:
        show_kinds(kinds, output)


@app.command("show", epilog=examples("el4ner dlq show 3-17", "el4ner dlq show 3-17 --raw > message.json"))
def show(
    ctx: typer.Context,
    letter: Annotated[str, typer.Argument(metavar="PARTITION-OFFSET", help="As `el4ner dlq list` shows it.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original value, byte for byte.")] = False,
    output: FormatOption = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Show a dead letter: why, where from, the original key, headers and value (as text if it is text, else in hex)."""
    settings = stream_settings(ctx, config)
    from workers.dead_letters.letters import parse_coordinates

    try:
        coordinates = parse_coordinates(letter)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="PARTITION-OFFSET") from error
    configure_cli_logging(ctx)
    from workers.dead_letters.listing import find_letter

    dead_letter = find_letter(settings, coordinates)
    if raw:
        results_file().buffer.write(dead_letter.value or b"")
        results_file().buffer.flush()
        if dead_letter.value is None:
            complain("the message has no value (it is a deletion)", severity="warning")
    elif output is OutputFormat.JSON:
        value = None if dead_letter.value is None else base64.b64encode(dead_letter.value).decode()
        headers = [[name, shown_bytes(value)] for name, value in dead_letter.headers]
        write_line({**dead_letter.to_json(), "headers": headers, "value_base64": value})
    else:
        show_letter(dead_letter)


@app.command(
    "replay",
    epilog=examples(
        "el4ner dlq replay --code engine-away --since 2h",
        "el4ner dlq replay --code engine-away --since 2h --rate 50 --journal replayed.jsonl --yes",
        "el4ner dlq replay 3-17 0-4 --yes",
    ),
)
def replay(
    ctx: typer.Context,
    letters: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION-OFFSET]...", help="These letters, instead of a filter.")
    ] = None,
    *,
    code: CodeOption = None,
    stage: StageOption = None,
    document: DocumentOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every letter, where no filter is given.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it is only said what would be done.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most N messages a second. (default: no limit)")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Note there what was sent, and pass over what is noted there already."),
    ] = None,
    output: FormatOption = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Send messages again to the topic and partition that they came from, with their key, value and headers.

    A dry run unless --yes. Nothing is deleted. Each message is sent once, however often it was given up on. Ctrl-C ends
    in good order; the same command with the same --journal goes on. Exit code 1 if no letter matches.
    """
    settings = stream_settings(ctx, config)
    filtered = any((code, stage, document, topic, since, until))
    if bool(letters) + filtered + everything != 1:
        raise typer.BadParameter("name dead letters, or a filter, or --all: one of the three")
    wanted = _wanted(settings, code, stage, document, topic, since, until)
    configure_cli_logging(ctx)
    from workers.cli.pacing import at_rate
    from workers.dead_letters.listing import read_letters
    from workers.dead_letters.replay import Journal
    from workers.dead_letters.replay import replay as send_again

    with ExitStack() as stack:
        noted = None if journal is None else stack.enter_context(Journal(journal))
        done = set() if noted is None else noted.done
        plan = _plan_named(settings, letters, done) if letters else _plan(settings, wanted, done, limit)
        show_left_out(plan)
        if not plan.letters:
            complain("no dead letter matches, or none is left to be sent", severity="warning")
            raise typer.Exit(EXIT_NOTHING)
        if not yes:
            show_plan(plan, output)
            tell(f"dry run: {messages(len(plan.letters))} would be sent again; add --yes to do it")
            return
        sent = 0
        # A bar takes standard output for itself, and is for those who do not see the lines.
        out = results_file()
        counter = None if out.isatty() else stack.enter_context(Counter("messages", len(plan.letters)))

        def delivered(replayed: Replayed) -> None:
            nonlocal sent
            sent += 1
            if noted is not None:
                noted.add(replayed)
            if output is OutputFormat.JSON:
                write_line(replayed.to_json(), out)
            else:
                where = f"{replayed.topic}-{replayed.partition}-{replayed.offset}"
                out.write(f"{replayed.letter} → {where}\n")
                out.flush()
            if counter is not None:
                counter.advance()

        try:
            stop = stack.enter_context(interrupt_flag())
            planned = read_letters(settings, only=plan.letters)
            send_again(settings, at_rate(planned, rate), delivered=delivered, stop=stop)
        finally:
            tell(f"{messages(sent)} of {len(plan.letters)} sent again")
        if stop():
            raise typer.Exit(130)
        if sent < len(plan.letters):
            complain("the others are no longer in the topic", severity="warning")
            raise typer.Exit(1)


def _wanted(
    settings: StreamSettings,
    codes: list[str] | None,
    stages: list[str] | None,
    documents: list[str] | None,
    topics: list[str] | None,
    since: str | None,
    until: str | None,
) -> Wanted:
    from workers.dead_letters.letters import Wanted

    now = datetime.now(UTC)
    moments = {}
    for option, moment in (("--since", since), ("--until", until)):
        try:
            moments[option] = None if moment is None else parse_moment(moment, now=now)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from error
    return Wanted(
        codes=frozenset(codes or ()),
        stages=frozenset(stages or ()),
        documents=frozenset(documents or ()),
        topics=frozenset(topics or ()),
        since_ms=moments["--since"],
        until_ms=moments["--until"],
        prefix=settings.kafka.topic_prefix,
    )


def _plan(settings: StreamSettings, wanted: Wanted, done: set[str], limit: int | None) -> ReplayPlan:
    from workers.dead_letters.letters import plan_replay
    from workers.dead_letters.listing import read_letters

    # From the beginning of what is wanted: whatever came of a letter was written after it.
    letters = read_letters(settings, since_ms=wanted.since_ms)
    return plan_replay(letters, settings.kafka, wanted=wanted, done=done, limit=limit)


def _plan_named(settings: StreamSettings, names: list[str], done: set[str]) -> ReplayPlan:
    from workers.dead_letters.letters import parse_coordinates
    from workers.dead_letters.replay import plan_named

    try:
        coordinates = [parse_coordinates(name) for name in dict.fromkeys(names)]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="PARTITION-OFFSET") from error
    return plan_named(settings, coordinates, done=done)


def _written(row: tuple[int, Any, Any]) -> tuple[int, Any]:
    return row[:2]
