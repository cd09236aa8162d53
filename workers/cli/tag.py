"""``el4ner tag``: text in, marked text out, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from el4ner.errors import DocumentError
from el4ner.types import Document, TaggedDocument
from workers.cli.entity_marks import EntityMark, marked
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
from workers.cli.inputs import as_they_come, documents_of
from workers.cli.options import ConfigOption, EnsembleOption, ModeOption, OutputFormat, PoolOption, examples
from workers.cli.output import complain, results
from workers.cli.progress import TerminalProgress
from workers.cli.settings import (
    configure_cli_logging,
    method_settings,
    overrides_of,
    with_only_pool,
    work_offline_if_local,
)
from workers.cli.standard_output import results_file

if TYPE_CHECKING:
    from el4ner.config import Settings
    from workers.inputs.documents import NewDocument

__all__ = ["EXAMPLES", "each_tagged", "tag"]

EXAMPLES = examples(
    'el4ner tag "Ada Lovelace met Charles Babbage in London in 1833."',
    "el4ner tag article.txt --format json | jq '.entities[].text'",
    "el4ner tag tickets.csv --text-field body --metadata --format json",
    "tail -n 20 app.log | el4ner tag --lines --pool logs",
)


def tag(
    ctx: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT|FILE|-]", help="A text, a file, or - for standard input.")
    ] = None,
    *,
    lines: Annotated[
        bool, typer.Option("--lines", help="Every line of text is a document, tagged as it comes.")
    ] = False,
    input_format: Annotated[
        InputFormat | None,
        typer.Option(help="What the input's records are. (default: by the file's name, else text)"),
    ] = None,
    text_field: TextFieldOption = "text",
    id_field: IdFieldOption = "id",
    metadata: MetadataOption = False,
    delimiter: DelimiterOption = ",",
    encoding: EncodingOption = None,
    errors: ErrorsOption = UnreadableBytes.STRICT,
    pool: PoolOption = None,
    ensemble: EnsembleOption = None,
    mode: ModeOption = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text, or JSON Lines.")] = OutputFormat.TEXT,
    batch: Annotated[int, typer.Option(min=1, help="The most documents that are tagged at a time.")] = 16,
    config: ConfigOption = None,
) -> None:
    """Mark the entities of a text, a file or standard input, in this process: no Kafka needed.

    Every record of a .jsonl, .csv or .tsv file is a document, other files are one; `--input-format` says otherwise.

    On a terminal entities are coloured by type, elsewhere they read [Ada Lovelace|person]. A document that cannot be
    tagged is reported on standard error, the others go on, and the exit code is 1.
    """
    settings = with_only_pool(method_settings(ctx, config, overrides_of(ensemble=ensemble, mode=mode)), pool)
    failures: list[DocumentError] = []

    def report(error: DocumentError) -> None:
        failures.append(error)
        complain(str(error))

    from workers.inputs.lines import Decoder

    decoder = Decoder(replace=errors is UnreadableBytes.REPLACE)
    texts = documents_of(
        text,
        lines=lines,
        unreadable=report,
        format=input_format,
        fields=fields_of(text_field, id_field, metadata, delimiter),
        encoding=encoding,
        decoder=decoder,
    )
    for document, tagged in each_tagged(settings, texts, batch, report, lambda: configure_cli_logging(ctx)):
        _show(tagged, document.metadata, output)
    warn_of_replaced(decoder)
    if failures:
        raise typer.Exit(1)


def each_tagged(
    settings: Settings,
    texts: Iterable[NewDocument],
    batch: int,
    report: Callable[[DocumentError], None],
    prepare: Callable[[], None],
) -> Iterator[tuple[NewDocument, TaggedDocument]]:
    """Documents with what was found in them, as they come.

    ``report`` is told of those that cannot be tagged. ``prepare`` is called before the models are loaded.
    """
    # The first document is read before any model is loaded: a misspelt file should say so at once.
    batches = as_they_come(texts, batch)
    documents = next(batches, None)
    if documents is None:
        return
    prepare()
    work_offline_if_local(settings)
    from el4ner.loader import load_pipeline
    from el4ner.tagger import Tagger

    with TerminalProgress() as progress:
        pipeline = load_pipeline(settings, progress=progress)
    with Tagger(pipeline) as tagger:
        while documents is not None:
            plain = [Document(source.id, source.text, source.pool, source.revision) for source in documents]
            for document, result in zip(documents, tagger.tag_or_error(plain, batch_size=batch), strict=True):
                if isinstance(result, DocumentError):
                    # Every pool that is hosted is read with every member first.
                    names_a_pool = document.pool is not None and document.pool not in settings.pools.paths
                    advice = f" (tag reads one pool at a time: --pool {document.pool})" if names_a_pool else ""
                    report(DocumentError(f"{document.id}: {result}{advice}", code=result.code))
                else:
                    yield document, result
            documents = next(batches, None)


def _show(tagged: TaggedDocument, metadata: Mapping[str, Any] | None, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        from el4ner.serialize import dumps, tagged_to_json

        value = tagged_to_json(tagged) | ({} if metadata is None else {"metadata": metadata})
        results_file().write(dumps(value).decode() + "\n")
        results_file().flush()
    else:
        console = results()
        marks = [EntityMark(entity.start, entity.end, entity.type) for entity in tagged.entities]
        console.print(marked(tagged.text, marks, console), end="" if tagged.text.endswith("\n") else "\n")
