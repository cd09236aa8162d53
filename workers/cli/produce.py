"""``el4ner produce``: documents from a file into the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.interrupts import interruptible
from workers.cli.options import ConfigOption, examples
from workers.cli.output import tell
from workers.cli.progress import Counter
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.pacing import at_rate

if TYPE_CHECKING:
    from workers.inputs import NewDocument

__all__ = ["EXAMPLES", "produce"]

EXAMPLES = examples(
    "el4ner produce articles.jsonl",
    "el4ner produce tickets.csv --text-column body --id-column ticket --pool news",
    "el4ner produce /var/log/app.log --follow --distinct --pool logs",
    "journalctl -f -o cat | el4ner produce - --distinct --pool logs",
)


class LineFormat(StrEnum):
    """What a line of the input is."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


def produce(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file, or - for standard input.")],
    *,
    line_format: Annotated[
        LineFormat | None, typer.Option("--format", help="What a line is. (default: by the file's name, else text)")
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="CSV: the column with the text.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="CSV: the column with the id. (default: derived from the text)")
    ] = None,
    distinct: Annotated[
        bool,
        typer.Option("--distinct", help="Equal texts are different documents (a log's lines), not one sent twice."),
    ] = False,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pool of documents that name none. (default: the worker's)")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the file grows, until Ctrl-C.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most N documents a second. (default: no limit)")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Send documents to the stream: text lines, JSON Lines ({"text": …, "id": …, "pool": …}) or CSV with a header.

    Every document is confirmed by the broker before it counts. An id that is not given is derived from pool and text:
    producing a file twice tags it once. Lines before a broken one have been sent when it is reported.
    """
    settings = stream_settings(ctx, config)
    path = None if file == "-" else Path(file).expanduser()
    if path is not None and not path.exists():
        raise typer.BadParameter(f"{path}: there is no such file", param_hint="FILE")
    configure_cli_logging(ctx)
    from workers.inputs import InputFormat, format_of, read_documents
    from workers.produce import produce_documents

    if line_format is not None:
        kind = InputFormat(line_format.value)
    else:
        kind = InputFormat.TEXT if path is None else format_of(path)
    sent = 0
    interrupted = False

    def read(stop: Callable[[], bool]) -> Iterator[NewDocument]:
        return read_documents(
            path,
            format=kind,
            pool=pool,
            column=text_column,
            id_column=id_column,
            distinct=distinct,
            follow=follow,
            stop=stop,
        )

    try:
        with interruptible(follow) as stop, Counter("documents", _count(path, kind, follow)) as counter:

            def delivered(_document: NewDocument) -> None:
                nonlocal sent
                sent += 1
                counter.advance()

            produced = produce_documents(settings, at_rate(read(stop), rate), delivered=delivered)
            interrupted = stop()
            seconds = produced.seconds
    except BaseException:
        tell(f"{sent} documents were sent")
        raise
    tell(f"{sent} documents sent in {seconds:.1f} s")
    if interrupted:
        raise typer.Exit(130)


def _count(path: Path | None, kind: str, follow: bool) -> int | None:
    """How many documents a file has, if that is its number of lines; None: not known."""
    if path is None or follow or kind == "csv" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
