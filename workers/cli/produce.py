"""``el4ner produce``: documents from a file into the stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from workers.cli.input_options import (
    DelimiterOption,
    EncodingOption,
    ErrorsOption,
    IdFieldOption,
    InputFormat,
    MetadataOption,
    TextFieldOption,
    UnreadableBytes,
    fields_of,
    warn_of_replaced,
)
from workers.cli.interrupts import StoppableIteration
from workers.cli.options import ConfigOption, examples
from workers.cli.output import complain, tell, told
from workers.cli.pacing import at_rate
from workers.cli.progress import Counter
from workers.cli.settings import configure_cli_logging, stream_settings
from workers.inputs.file_formats import format_of

if TYPE_CHECKING:
    from workers.inputs.documents import NewDocument
    from workers.inputs.follow_state import FollowState
    from workers.inputs.lines import BadRecord
    from workers.inputs.rejects import Rejects

__all__ = ["EXAMPLES", "ProduceCommand", "produce"]

EXAMPLES = examples(
    "el4ner produce articles.jsonl",
    "el4ner produce tickets.csv --text-field body --id-field ticket --metadata --pool news",
    "el4ner produce articles.jsonl --on-error dead-letter bad.jsonl",
    "el4ner produce /var/log/app.log --follow --state app.state --distinct --pool logs",
    "journalctl -f -o cat | el4ner produce - --distinct --pool logs",
)

_ON_ERROR = "--on-error"
_SHOWN_REJECTS = 20


class ProduceCommand(TyperCommand):
    """Takes ``--on-error dead-letter FILE``, an option whose second value only one of its first ones has."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Make one value of the two."""
        joined: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == _ON_ERROR and (mode := next(rest, None)) is not None:
                word = f"{_ON_ERROR}={mode}"
            joined.append(word)
            if not word.startswith(f"{_ON_ERROR}="):
                continue
            mode = word.removeprefix(f"{_ON_ERROR}=")
            if mode == "dead-letter" and not (file := next(rest, "-")).startswith("-"):
                joined[-1] = f"{word}\n{file}"
            else:
                # At once: what stands behind a misspelt mode would be blamed for being an argument too many.
                _parse_on_error(mode)
        return super().parse_args(ctx, joined)


def produce(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A file, or - for standard input.")],
    *,
    input_format: Annotated[
        InputFormat | None,
        typer.Option(
            "--input-format", "--format", help="What a record is. (default: by the file's name, else a line of text)"
        ),
    ] = None,
    text_field: TextFieldOption = "text",
    id_field: IdFieldOption = "id",
    metadata: MetadataOption = False,
    delimiter: DelimiterOption = ",",
    encoding: EncodingOption = None,
    errors: ErrorsOption = UnreadableBytes.STRICT,
    on_error: Annotated[
        str,
        typer.Option(
            _ON_ERROR,
            metavar="stop|skip|dead-letter FILE",
            help="A record that is no document: end there, leave it out, or write it to FILE (reasons beside it).",
        ),
    ] = "stop",
    from_line: Annotated[int, typer.Option(min=1, metavar="N", help="Leave out what begins before line N.")] = 1,
    distinct: Annotated[
        bool,
        typer.Option("--distinct", help="Equal texts are different documents (a log's lines), not one sent twice."),
    ] = False,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pool of documents that name none. (default: the worker's)")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the file grows, until Ctrl-C.")] = False,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="--follow: keep in FILE how far it has come, and go on from there."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most N documents a second. (default: no limit)")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Send documents to the stream: text lines, JSON Lines ({"text": …, "id": …, "pool": …}), CSV or TSV with a header.

    Every document is confirmed by the broker before it counts. An id that is not given is derived from pool and text:
    producing a file twice tags it once. Whatever ends it, it is said how many were sent, and from which line to go on.
    Exit code 1 if a record was left out.
    """
    settings = stream_settings(ctx, config)
    path = None if file == "-" else Path(file).expanduser()
    if path is not None and not path.exists():
        raise typer.BadParameter(f"{path}: there is no such file", param_hint="FILE")
    if state is not None and (not follow or from_line > 1):
        raise typer.BadParameter("is for --follow, without --from-line", param_hint="--state")
    if state is not None and path is not None and state.exists() and state.samefile(path):
        raise typer.BadParameter(f"{state}: is the file that is followed: name another one", param_hint="--state")
    fields = fields_of(text_field, id_field, metadata, delimiter)
    configure_cli_logging(ctx)
    from workers.inputs.documents import read_documents
    from workers.inputs.follow_state import FollowState
    from workers.inputs.lines import Decoder
    from workers.produce import produce_documents

    kind = input_format or (InputFormat.TEXT if path is None else format_of(path))
    rejects = _rejects(on_error, path)
    decoder = Decoder(replace=errors is UnreadableBytes.REPLACE)
    follow_state = None if state is None else FollowState(state)
    account = _Account(follow_state)
    with StoppableIteration[Any]() as interrupt_flag:

        def bad(record: BadRecord) -> None:
            with interrupt_flag.undisturbed():
                rejects(record)

        documents: Iterator[NewDocument] = read_documents(
            path,
            format=kind,
            pool=pool,
            fields=fields,
            encoding=encoding,
            decoder=decoder,
            from_line=from_line,
            bad=bad,
            distinct=distinct,
            follow=follow,
            state=follow_state,
            notice=lambda text: complain(text, severity="notice"),
            stop=lambda: interrupt_flag.number is not None,
        )
        try:
            with Counter("documents", _count(path, kind, follow) if told().is_terminal else None) as counter:

                def delivered(document: NewDocument) -> None:
                    account.delivered(document)
                    counter.advance()

                produced = produce_documents(
                    settings,
                    interrupt_flag.until_stopped(at_rate(documents, rate)),
                    delivered=delivered,
                    undelivered=account.undelivered,
                    too_large=lambda document, reason: rejects(account.too_large(document, file, reason)),
                )
        except BaseException as error:
            tell(account.after(error))
            raise
        finally:
            if follow_state is not None:
                follow_state.save()
            warn_of_replaced(decoder)
            _sum_up(rejects)
        stopped = interrupt_flag.exit_status
    tell(f"{produced.documents} documents sent in {produced.seconds:.1f} s{account.where_to_go_on(stopped)}")
    if stopped is not None:
        raise typer.Exit(stopped)
    if rejects.count:
        raise typer.Exit(1)


class _Account:
    """What was sent, and where it would have to go on."""

    def __init__(self, state: FollowState | None) -> None:
        self._state = state
        self._sent = 0
        self._last: NewDocument | None = None
        self._unknown: list[NewDocument] = []

    def delivered(self, document: NewDocument) -> None:
        self._sent += 1
        self._last = document
        # Behind one that was not delivered nothing counts: it has to be sent again.
        if self._state is not None and not self._unknown and document.line is not None:
            self._state.sent(document.line)

    def undelivered(self, document: NewDocument) -> None:
        self._unknown.append(document)

    def too_large(self, document: NewDocument, name: str, reason: str) -> BadRecord:
        """The document as a record that cannot be sent."""
        from workers.inputs.lines import BadRecord, RawLine

        line = document.line or RawLine(0, 0, b"", "utf-8")
        return BadRecord("standard input" if name == "-" else name, line, reason, prelude=document.prelude)

    def after(self, error: BaseException) -> str:
        """What is said when it has ended early."""
        from workers.inputs.lines import BadRecord

        unknown = f", {len(self._unknown)} are not confirmed" if self._unknown else ""
        lines = [document.line.number for document in self._unknown if document.line is not None]
        skip = ""
        if isinstance(error, BadRecord):
            lines.append(error.line.number)
            skip = "; --on-error skip leaves such records out"
        elif not lines and self._last is not None:
            lines = [self._next()]
        if not lines:
            return f"{self._sent} documents were sent{unknown}"
        how = f"--from-line {min(lines)} (what is sent twice is tagged once)"
        if self._state is not None:
            how = "the same command again"
        return f"{self._sent} documents were sent{unknown}; to go on: {how}{skip}"

    def where_to_go_on(self, stopped: int | None) -> str:
        """The same where it was stopped in good order."""
        if stopped is None or self._last is None:
            return ""
        return f"; to go on: {f'--from-line {self._next()}' if self._state is None else 'the same command again'}"

    def _next(self) -> int:
        return 1 if self._last is None or self._last.line is None else self._last.line.next_number


def _rejects(on_error: str, path: Path | None) -> Rejects:
    from workers.inputs.rejects import Rejects

    shown = 0

    def warn(text: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN_REJECTS:
            complain(text, severity="warning")
        elif shown == _SHOWN_REJECTS + 1:
            complain("more are counted, and not shown", severity="warning")

    mode, dead_letters = _parse_on_error(on_error)
    return Rejects(mode, dead_letters, path, warn)


def _parse_on_error(value: str) -> tuple[str, Path | None]:
    from workers.inputs.rejects import parse_on_error

    try:
        return parse_on_error(value.split("\n", 1))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=_ON_ERROR) from error


def _sum_up(rejects: Rejects) -> None:
    if rejects.count:
        where = "" if rejects.file is None else f"; they are in {rejects.file}, reasons in {rejects.file}.reasons.jsonl"
        complain(f"{rejects.count} records were left out{where}", severity="warning")


def _count(path: Path | None, kind: str, follow: bool) -> int | None:
    """How many documents a file has, if that is its number of lines; None: not known."""
    if path is None or follow or kind in ("csv", "tsv") or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
