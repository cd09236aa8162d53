"""``el4ner pool queue``: which sentences of what was tagged a person should look at first."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from el4ner.errors import ConfigError, MessageError
from workers.cli.entity_marks import EntityMark, marked
from workers.cli.options import ConfigOption, OutputFormat
from workers.cli.output import complain, results, tell
from workers.cli.pool_topic import with_what_it_was_taught
from workers.cli.settings import configure_cli_logging, method_settings, stream_settings, with_only_pool
from workers.cli.standard_output import results_file
from workers.printable import legible

if TYPE_CHECKING:
    from rich.console import Console

    from el4ner.config import Settings
    from el4ner.pools import Pool
    from el4ner.pools.review_queue import QueuedSentence, ReviewQueue
    from el4ner.types import TaggedDocument
    from workers.config import StreamSettings

__all__ = ["queue_pool"]

_WORDS_SHOWN: Final = 8


def queue_pool(
    ctx: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A shipped or configured name, a folder or a file.")],
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What `el4ner tag --format json` wrote; - is standard input."),
    ] = None,
    *,
    from_topic: Annotated[
        bool, typer.Option("--from-topic", help="The documents that are on tagged-documents now, instead of a file's.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The most sentences that are shown.")] = 50,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Show the sentences that are worth looking at: where the pool is least certain, and least like them.

    Of sentences that differ in numbers, times and addresses alone one is shown, and none that the pool has, or was
    taught on the topic. Each is valued by what those above it leave to learn.
    """
    if (source is None) != from_topic:
        raise typer.BadParameter("give a file of tagged documents, or --from-topic", param_hint="FILE")
    from el4ner.pools.review_queue import ReviewQueue

    passed_over: Counter[str] = Counter()
    documents = 0
    if source is None:
        settings = stream_settings(ctx, config)
        configure_cli_logging(ctx)
        if pool not in settings.pools.paths:
            names = ", ".join(settings.pools.paths)
            raise ConfigError(f"the stream has no pool {pool!r} by its configuration; it has: {names}")
        own = with_what_it_was_taught(settings, _pool(settings, pool))
        queue = ReviewQueue(own, max_chars=settings.method.max_sentence_chars)
        documents = _add_topic(queue, own.name, settings, passed_over)
    else:
        method = method_settings(ctx, config)
        configure_cli_logging(ctx)
        own = _pool(method, pool)
        queue = ReviewQueue(own, max_chars=method.method.max_sentence_chars)
        for tagged in _of_file(source):
            if tagged.pool == own.name:
                queue.add(tagged)
                documents += 1
            else:
                passed_over[tagged.pool] += 1
    shown = queue.first(limit)
    console = results()
    for number, sentence in enumerate(shown, start=1):
        if output is OutputFormat.JSON:
            _show_json(number, sentence)
        else:
            _show(number, sentence, console)
    tell(f"{len(shown)} sentences out of {documents} documents of pool {own.name}")
    if passed_over:
        others = ", ".join(f"{name} ({count})" for name, count in sorted(passed_over.items()))
        complain(f"documents of other pools were passed over: {legible(others)}", severity="warning")


def _pool(settings: Settings, named: str) -> Pool:
    """Under the name that documents know it by."""
    from el4ner.pools import load_pools

    (pool,) = load_pools(with_only_pool(settings, named).pools).values()
    return pool


def _add_topic(queue: ReviewQueue, pool: str, settings: StreamSettings, passed_over: Counter[str]) -> int:
    """How many documents there were."""
    from workers.tail import tagged_until_now

    ids: set[str] = set()

    def deleted(document: str) -> None:
        queue.forget(document)
        ids.discard(document)

    def unreadable(error: MessageError) -> None:
        complain(f"a message was passed over: {error}", severity="warning")

    for message in tagged_until_now(settings, unreadable=unreadable, deleted=deleted):
        tagged = message.document
        if tagged is not None and tagged.pool == pool:
            queue.add(tagged)
            ids.add(tagged.id)
        else:
            deleted(str(message.value["id"]))  # what was known of it, if anything, is of an earlier revision
            if tagged is not None:
                passed_over[tagged.pool] += 1
    return len(ids)


def _of_file(path: Path) -> Iterator[TaggedDocument]:
    """
    Raises:
        InputError: the file cannot be read, or a line is no tagged document: names file and line.
    """
    import orjson

    from el4ner.serialize import tagged_from_json
    from workers.inputs.encodings import InputError

    name = "stdin" if str(path) == "-" else str(path)
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    data = orjson.loads(line)
                    if data["text"] is None or data["pool"] is None:
                        continue  # it failed
                    tagged = tagged_from_json(data)
                    if not all(isinstance(part, str) for part in (tagged.id, tagged.text, tagged.pool)):
                        raise MessageError("id, text and pool are texts")  # noqa: TRY301  # told as all the others are
                    yield tagged
                except (MessageError, ValueError, KeyError, TypeError, AttributeError) as error:
                    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
                    raise InputError(
                        f"{name}:{number}: is no tagged document: {reason}\n"
                        "make such a file with: el4ner tag --format json"
                    ) from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _show_json(number: int, sentence: QueuedSentence) -> None:
    from el4ner.serialize import dumps, entity_to_json

    line: dict[str, Any] = {
        "rank": number,
        "document": sentence.document,
        "start": sentence.start,
        "text": sentence.text,
        "entities": [entity_to_json(entity) for entity in sentence.entities],
        "value": round(sentence.value, 4),
        "doubt": round(sentence.doubt, 4),
        "new_words": list(sentence.new_words),
    }
    results_file().write(dumps(line).decode() + "\n")


def _show(number: int, sentence: QueuedSentence, console: Console) -> None:
    place = f"{legible(sentence.document)}:{sentence.start}"
    console.print(f"{number}. {place}: {why(sentence)}")
    marks = [EntityMark(entity.start, entity.end, entity.type) for entity in sentence.entities]
    console.print(marked(sentence.text, marks, console))


def why(sentence: QueuedSentence) -> str:
    """Why somebody should look at it."""
    reasons = []
    unsure = sorted(sentence.entities, key=lambda entity: entity.confidence)
    if unsure:
        least = unsure[0]
        reasons.append(f"{legible(least.text)} is {least.type} with {least.confidence:.0%}")
    if sentence.new_words:
        words = sorted(sentence.new_words, key=lambda word: -sentence.new_words[word])
        more = f" and {len(words) - _WORDS_SHOWN} more" if len(words) > _WORDS_SHOWN else ""
        reasons.append(f"not in the pool: {legible(', '.join(words[:_WORDS_SHOWN]))}{more}")
    return "; ".join(reasons)
