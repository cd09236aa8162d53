"""``el4ner pool add``, ``remove`` and ``log``: what a pool is taught while workers use it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from el4ner.errors import PoolError
from el4ner.nearest import no_such
from workers.cli.moments import shown_moment
from workers.cli.options import ConfigOption, OutputFormat
from workers.cli.output import complain, results, table, tell
from workers.cli.pool_topic import teacher_here
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.cli.standard_output import results_file
from workers.printable import escaped

if TYPE_CHECKING:
    from el4ner.pools import Pool
    from el4ner.pools.disagreement import Disagreement
    from el4ner.pools.examples import PoolExample
    from el4ner.types import Span
    from workers.config import StreamSettings

__all__ = ["add_example", "log_examples", "remove_example"]

_SHOWN_CHARACTERS = 60
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="The pool's name, as documents have it.")]


def add_example(
    ctx: typer.Context,
    pool: PoolArgument,
    *,
    text: Annotated[
        str | None,
        typer.Option(help="A sentence or log line. (default: JSON Lines with text and entities, from standard input)"),
    ] = None,
    entity: Annotated[
        list[str] | None,
        typer.Option(metavar="SURFACE=TYPE", help="An entity, wherever the text has it; may be repeated."),
    ] = None,
    new_type: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE=DESCRIPTION", help="A type that the pool does not have; may be repeated."),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Who says so. (default: this user)")] = None,
    document: Annotated[str | None, typer.Option(metavar="ID", help="The document that the text is from.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also where the pool says otherwise.")] = False,
    config: ConfigOption = None,
) -> None:
    """Teach a pool a labelled text. Workers go by it from their next batch on.

    Without --entity the text shows what is no entity. Where the pool's other sentences have a name as something else,
    it says so first, and asks.

    A line of standard input: {"text": "…", "entities": {"SURFACE": "TYPE"}, "types"?: {"TYPE": "DESCRIPTION"}}.
    """
    from el4ner.errors import MessageError
    from el4ner.pools.taught import taught_pool
    from el4ner.text.segment import segment
    from workers.teaching.example_check import check_examples
    from workers.teaching.topic_examples import send_examples, taught_to

    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    base = _files_of(settings, pool)
    records = _records(text, entity, new_type)

    def unreadable(place: str, error: MessageError) -> None:
        complain(f"{place}: passed over: {error}", severity="warning")

    taught = taught_pool(base, taught_to(settings.kafka, pool, unreadable=unreadable))
    who = teacher_here() if teacher is None else teacher
    examples = [(where, _example(where, record, who, document)) for where, record in records]
    checked, after = check_examples(pool, taught, examples)
    sent = [(each.key, each.example) for each in checked]
    objections = [disagreement for each in checked for disagreement in each.disagreements]
    for _, each in sent:
        if len(segment(each.text, base.text_kind)) > 1:
            complain(
                f"{_short(each.text)!r} is several sentences: documents are read by sentence",
                severity="warning",
            )
    _ask_about(objections, yes=yes)
    send_examples(settings.kafka, sent)
    for key, each in sent:
        results_file().write(f"{key.digest[:12]}\t{escaped(_short(each.text))}\n")
    if after.pool.fingerprint == taught.pool.fingerprint:
        tell(f"pool {pool} had that already, and stays as it is")
    else:
        tell(f"pool {pool} is {after.pool.fingerprint} now; workers go by it from their next batch on")


def remove_example(
    ctx: typer.Context,
    pool: PoolArgument,
    digest: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIGEST]...", help="As log shows it; its first characters do."),
    ] = None,
    *,
    text: Annotated[str | None, typer.Option(help="The text of the example, instead of a digest.")] = None,
    config: ConfigOption = None,
) -> None:
    """Withdraw examples: the pool is what its files and its other examples say."""
    from el4ner.pools.examples import example_digest
    from workers.messages.pool_examples import ExampleKey
    from workers.teaching.topic_examples import send_examples, taught_to

    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    base = _files_of(settings, pool)
    wanted = [*(digest or ()), *([] if text is None else [example_digest(text)])]
    if not wanted or "" in wanted:  # an empty one would begin every digest
        raise typer.BadParameter("name a digest, or --text", param_hint="DIGEST")
    known = {example.digest: example for example in taught_to(settings.kafka, pool)}
    removed = []
    for each in wanted:
        matching = [name for name in known if name.startswith(each)]
        if len(matching) > 1:
            raise PoolError(f"{each!r} begins {len(matching)} examples of pool {pool}: give more of its characters")
        if not matching:
            raise PoolError(_unknown(pool, each, text, base))
        removed += matching
    send_examples(settings.kafka, [(ExampleKey(pool, name), None) for name in dict.fromkeys(removed)])
    for name in dict.fromkeys(removed):
        results_file().write(f"{name[:12]}\t{escaped(_short(known[name].text))}\n")
    tell("withdrawn; workers go without from their next batch on")


def log_examples(
    ctx: typer.Context,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="(default: every pool)")] = None,
    *,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Show who taught what, and when, and what was withdrawn, as far as the topic still has it: in the order in which
    it was written."""
    from el4ner.serialize import dumps
    from workers.messages.pool_examples import example_to_json
    from workers.teaching.topic_examples import messages_until_now

    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    shown = table("when", "who", "pool", "example", "text", "entities")
    for message in messages_until_now(settings.kafka):
        key, example = message.key, message.example
        if pool is not None and key.pool != pool:
            continue
        when = message.timestamp_ms if example is None else example.taught_at
        if output is OutputFormat.JSON:
            value: dict[str, Any] = {"digest": key.digest, "pool": key.pool, "time": when}
            value |= {"withdrawn": True} if example is None else example_to_json(key.pool, example)
            results_file().write(dumps(value).decode() + "\n")
        elif example is None:
            shown.add_row(shown_moment(when), "", key.pool, key.digest[:12], "(withdrawn)", "")
        else:
            entities = ", ".join(f"{span.text}={label}" for span, label in example.spans)
            shown.add_row(
                shown_moment(when), example.teacher, key.pool, key.digest[:12], _short(example.text), entities or "none"
            )
    if output is OutputFormat.TEXT:
        results().print(shown)


# --- what is said, and what it means ---


def _files_of(settings: StreamSettings, pool: str) -> Pool:
    from el4ner.pools import load_pool, reading_of

    paths = settings.pools.paths
    if pool not in paths:
        raise PoolError(
            f"{no_such('pool', pool, sorted(paths))}: an example is for a pool that workers host ([pools.paths])"
        )
    return load_pool(paths[pool], reading=reading_of(settings.pools))


def _records(
    text: str | None, entity: Sequence[str] | None, new_type: Sequence[str] | None
) -> list[tuple[str, dict[str, Any]]]:
    """Where each is from, and what it says."""
    if text is not None:
        entities = dict(_pair(each, "--entity", "SURFACE=TYPE") for each in entity or ())
        types = dict(_pair(each, "--new-type", "TYPE=DESCRIPTION", first=True) for each in new_type or ())
        return [("--text", {"text": text, "entities": entities, "types": types})]
    if entity or new_type:
        raise typer.BadParameter("--entity and --new-type are about a --text", param_hint="--text")
    return list(_lines())


def _pair(argument: str, option: str, form: str, *, first: bool = False) -> tuple[str, str]:
    left, equals, right = argument.partition("=") if first else argument.rpartition("=")
    if not equals or not left or not right:
        raise typer.BadParameter(f"expected {form}, not {argument!r}", param_hint=option)
    return left, right


def _lines() -> Iterator[tuple[str, dict[str, Any]]]:
    import orjson

    if sys.stdin.isatty():
        raise typer.BadParameter("name a text, or give JSON Lines by standard input", param_hint="--text")
    for number, line in enumerate(sys.stdin.buffer, 1):
        if not line.strip():
            continue
        where = f"standard input:{number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise PoolError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise PoolError(f'{where}: needs an object with a "text"')
        for key in ("entities", "types"):
            pairs = record.setdefault(key, {})
            if not isinstance(pairs, dict) or not all(isinstance(each, str) for each in pairs.values()):
                raise PoolError(f'{where}: "{key}" is an object of strings, not {str(pairs)[:80]}')
        unknown = record.keys() - {"text", "entities", "types"}
        if unknown:
            raise PoolError(f"{where}: {no_such('key', sorted(unknown)[0], ['text', 'entities', 'types'])}")
        yield where, record


def _example(where: str, record: dict[str, Any], teacher: str, document: str | None) -> PoolExample:
    from el4ner.pools.examples import ExampleSource, PoolExample
    from el4ner.text.mentions import find_mentions

    text = record["text"].strip()
    spans: list[tuple[Span, str]] = []
    for surface, label in record["entities"].items():
        mentions = find_mentions(surface, text)
        if not mentions:
            raise PoolError(f"{where}: the text does not have {surface!r} as a whole word")
        spans += [(mention, label) for mention in mentions]
    try:
        return PoolExample(
            text,
            tuple(spans),
            record["types"],
            teacher,
            time.time_ns() // 1_000_000,
            None if document is None else ExampleSource(document),
        )
    except PoolError as error:
        raise PoolError(f"{where}: {error}") from error


def _ask_about(objections: Sequence[Disagreement], *, yes: bool) -> None:
    """
    Raises:
        typer.Exit: nobody says that it is meant so.
    """
    for objection in objections:
        complain(objection.message, severity="warning")
    if not objections or yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        complain("nothing was taught: --yes teaches it all the same")
        raise typer.Exit(1)
    if not typer.confirm("Teach it all the same?", err=True):
        raise typer.Exit(1)


def _unknown(pool: str, digest: str, text: str | None, base: Pool) -> str:
    if text is not None and any(sentence.text == text for sentence in base.sentences):
        return (
            f"the text is in the files of pool {pool}, and nothing was taught about it: take it out of them, or teach "
            "what is right"
        )
    return f"pool {pool} has no example {digest!r}; el4ner pool log {pool} shows those that it has"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
