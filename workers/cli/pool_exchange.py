"""``el4ner pool import`` and ``el4ner pool export``: pools from and for the tools that people label text with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from el4ner.errors import PoolError
from workers.cli.options import ConfigOption, PoolErrorsOption
from workers.cli.output import complain, tell
from workers.cli.pool_topic import send_to_topic, teacher_here, with_what_it_was_taught
from workers.cli.settings import configure_cli_logging, method_settings, stream_settings
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from el4ner.pools import LeftOut, Pool, PoolSentence
    from el4ner.pools.exchange import ExportTally, ImportTally
    from el4ner.pools.read_options import OnError
    from el4ner.text.segment import TextKind

__all__ = ["export_pool", "import_pool"]

_SHOWN: Final = 50


class PoolFormat(StrEnum):
    """What ``el4ner.pools.exchange`` reads and writes."""

    LABELSTUDIO = "labelstudio"
    DOCCANO = "doccano"
    PRODIGY = "prodigy"
    SPACY = "spacy"
    BRAT = "brat"
    CONLL = "conll"
    JSONL = "jsonl"


_OF_SENTENCES: Final = (PoolFormat.CONLL, PoolFormat.JSONL)


class KindOfText(StrEnum):
    """See ``text`` of a ``pool.toml``."""

    PROSE = "prose"
    LOG = "log"


class OverlapChoice(StrEnum):
    """See :data:`el4ner.pools.exchange.Overlaps`."""

    STOP = "stop"
    LONGEST = "longest"


class JoinChoice(StrEnum):
    """See ``pools.join``."""

    SCRIPT = "script"
    SPACE = "space"
    NONE = "none"


class OffsetUnit(StrEnum):
    """See ``pools.offsets``."""

    AUTO = "auto"
    CODE_POINTS = "code-points"
    UTF_16 = "utf-16"


def import_pool(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What the tool exported; of brat, also a folder.")],
    *,
    tool: Annotated[PoolFormat, typer.Option("--from", help="Whose format it is.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|FILE.jsonl", help="Where the pool goes: a folder, or its sentences alone."),
    ] = None,
    to_topic: Annotated[
        bool, typer.Option("--to-topic", help="Teach the sentences to --pool on the stream, instead of writing files.")
    ] = False,
    pool: Annotated[str | None, typer.Option(metavar="NAME", help="The pool's name. (default: the output's)")] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who teaches, with --to-topic. (default: your user name)")
    ] = None,
    new_types: Annotated[
        bool, typer.Option("--new-types", help="Teach types that the pool does not have, too, with --to-topic.")
    ] = False,
    types_of: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="A pool whose descriptions of types this one takes over.")
    ] = None,
    text: Annotated[
        KindOfText | None,
        typer.Option(help="How documents are cut into sentences: log: by lines. (default: prose, or as --pool has it)"),
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option(
            "--split/--no-split", help="Cut documents into sentences. (default: yes, but for conll and jsonl)"
        ),
    ] = None,
    overlaps: Annotated[
        OverlapChoice, typer.Option(help="What spans that overlap do: stop, or the longest stays.")
    ] = OverlapChoice.STOP,
    offsets: Annotated[
        OffsetUnit | None, typer.Option(help="What offsets count, behind an emoji. (default: the file's, or auto)")
    ] = None,
    join: Annotated[
        JoinChoice | None, typer.Option(help="How tokens become a text. (default: the file's, or script)")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A key of JSON records that says nothing about entities; may be repeated."),
    ] = None,
    on_error: PoolErrorsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a pool that is there.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a pool of what was labelled in another tool, or teach it to a pool, and say what became of every record.

    What its annotator rejected, or passed over, is left out and counted. A record that is wrong stops the import with
    its file and line, unless `--on-error skip` leaves it out.
    """
    from dataclasses import replace

    from el4ner.pools import load_pool, reading_of
    from el4ner.pools.exchange import ImportOptions, ImportTally, imported_sentences, leave_out

    if to_topic == (output is not None):
        raise typer.BadParameter("name a folder or a file, or --to-topic, and not both", param_hint="--output")
    if output == Path("-"):
        raise typer.BadParameter("a pool is a folder, or a file of sentences: name one", param_hint="--output")
    if to_topic and pool is None:
        raise typer.BadParameter("--to-topic needs the name of the pool that is taught", param_hint="--pool")
    stream = stream_settings(ctx, config) if to_topic else None
    settings = stream or method_settings(ctx, config)
    configure_cli_logging(ctx)
    reading = reading_of(settings.pools)
    taught = load_pool(settings.pools.paths.get(pool, pool), name=pool, reading=reading) if stream and pool else None
    known = load_pool(settings.pools.paths.get(types_of, types_of), reading=reading).types if types_of else {}
    choices = {"offsets": offsets, "join": join, "on_error": on_error}
    chosen: dict[str, Any] = {key: choice.value for key, choice in choices.items() if choice is not None}
    kind = text.value if text is not None else "prose" if taught is None else taught.text_kind
    options = ImportOptions(
        reading=replace(reading, **chosen, ignore=reading.ignore | set(ignore or ())),
        split=tool not in _OF_SENTENCES if split is None else split,
        kind=kind,
        max_chars=settings.method.max_sentence_chars,
        overlaps=overlaps.value,
    )
    tally = ImportTally()
    sentences = imported_sentences(source.expanduser(), tool.value, options, tally)
    if output is not None:
        _write_pool(
            output, sentences, tally, name=pool or output.stem or source.stem, known=known, kind=kind, force=force
        )
    elif stream is not None and taught is not None:
        refuse = partial(leave_out, options=options, tally=tally)
        who = teacher_here() if teacher is None else teacher
        count = send_to_topic(
            stream, taught, sentences, teacher=who, new_types=new_types, descriptions=known, refuse=refuse
        )
        _warn(tally.left_out, tally.skipped + tally.wrong)
        tell(f"pool {taught.name} was taught {count} sentences")
        _tell_left_out(tally)


def _write_pool(
    output: Path,
    sentences: Iterable[PoolSentence],
    tally: ImportTally,
    *,
    name: str,
    known: Mapping[str, str],
    kind: TextKind,
    force: bool,
) -> None:
    from el4ner.pools.exchange import PoolWriter
    from el4ner.pools.readers import describe

    with PoolWriter(output, force=force) as writer:
        for sentence in sentences:
            writer.add(sentence)
        _warn(tally.left_out, tally.skipped + tally.wrong)
        if not tally.mentions:
            raise PoolError(
                f"none of the {tally.sentences} sentences has a labelled span, so there are no entity types to learn "
                "from them"
            )
        described = {label: known.get(label) or describe(label) for label in sorted(tally.mentions)}
        writer.finish(name, {**known, **described}, kind)
    _tell_imported(name, output, tally, sorted(tally.mentions.keys() - known.keys()))


def export_pool(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="A shipped or configured pool, a folder or a file.")
    ],
    *,
    tool: Annotated[PoolFormat, typer.Option("--to", help="Whose format to write.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE|FOLDER", help="Where to: of brat a folder. (default: standard output)"),
    ] = None,
    on_error: PoolErrorsOption = None,
    taught: Annotated[
        bool, typer.Option("--taught", help="With what the pool was taught on the stream over its files.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write a pool as another tool imports it.

    jsonl: into a folder with a pool.toml, or into a file that ends with .jsonl. spacy: a DocBin if the file ends with
    .spacy, for which spaCy has to be installed; else JSON Lines. A sentence that the format cannot hold stops the
    export, unless `--on-error skip` leaves it out; it is never written otherwise than it is.
    """
    from el4ner.pools import load_pool, reading_of
    from el4ner.pools.exchange import ExportTally

    stream = stream_settings(ctx, config) if taught else None
    settings = stream or method_settings(ctx, config)
    configure_cli_logging(ctx)
    reading = reading_of(settings.pools)
    choice: OnError | None = None if on_error is None else on_error.value
    configured = settings.pools.paths
    name = source if source in configured else None
    pool = load_pool(configured.get(source, source), name=name, reading=reading, on_error=choice)
    if stream is not None:
        pool = with_what_it_was_taught(stream, pool)
    _warn(pool.left_out, len(pool.left_out))
    tally = ExportTally()
    output = None if output == Path("-") else output
    _export(pool, tool, output, tally, on_error=choice or reading.on_error, force=force)
    _warn(tally.left_out, len(tally.left_out))
    _tell_exported(pool, output, tally)


def _export(
    pool: Pool, tool: PoolFormat, output: Path | None, tally: ExportTally, *, on_error: OnError, force: bool
) -> None:
    from el4ner.pools.exchange import PoolWriter, brat_files, exported, write_file, write_folder

    is_docbin = tool is PoolFormat.SPACY and output is not None and output.suffix.lower() == ".spacy"
    if tool is PoolFormat.BRAT:
        if output is None:
            raise typer.BadParameter("brat has a folder of files: name it", param_hint="--output")
        write_folder(output, brat_files(pool.sentences, pool.types, tally, on_error=on_error))
    elif tool is PoolFormat.JSONL and output is not None:
        with PoolWriter(output, force=force) as writer:
            for sentence in pool.sentences:
                writer.add(sentence)
            writer.finish(pool.name, pool.types, pool.text_kind)
        tally.sentences = len(pool.sentences)
    else:
        content = exported(pool.sentences, tool.value, tally, on_error=on_error, docbin=is_docbin)
        if output is None:
            results = results_file()
            for piece in content:
                results.write(piece.decode())
        else:
            write_file(output, content, force=force)


def _warn(left_out: Iterable[LeftOut], total: int) -> None:
    shown = list(left_out)[:_SHOWN]
    for item in shown:
        complain(f"{item.where}: left out: {item.reason}", severity="warning")
    if total > len(shown):
        complain(f"{total - len(shown)} more were left out", severity="warning")


def _tell_imported(name: str, output: Path, tally: ImportTally, nameless: Sequence[str]) -> None:
    mentions = ", ".join(f"{label} {count}" for label, count in tally.mentions.most_common())
    tell(f"{output}: pool {name}, {tally.sentences} sentences, {tally.entity_free} without entities; {mentions}")
    _tell_left_out(tally)
    if output.is_dir() and nameless:
        tell(
            f"{output / 'pool.toml'} describes {', '.join(nameless)} by nothing but the name: say there what it is, "
            "since models read that"
        )


def _tell_left_out(tally: ImportTally) -> None:
    if tally.skipped or tally.wrong:
        tell(f"left out: {tally.skipped + tally.wrong}, {tally.wrong} of them wrong")
    if tally.overlapping:
        tell(f"{tally.overlapping} spans overlapped a longer one, which was kept in their place")


def _tell_exported(pool: Pool, output: Path | None, tally: ExportTally) -> None:
    tell(f"{output or 'standard output'}: {tally.sentences} of the {len(pool.sentences)} sentences of pool {pool.name}")
    if tally.respaced:
        complain(
            f"{tally.respaced} sentences have line breaks, tabs or white space around them, which columns cannot hold: "
            "tokens and tags are right, the white space between them is lost",
            severity="warning",
        )
