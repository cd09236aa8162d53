"""``el4ner redact``: texts without the names in them, here; and the keys and originals of the stream's redaction."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from el4ner.errors import DocumentError
from el4ner.nearest import no_such
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
from workers.cli.inputs import documents_of
from workers.cli.options import ConfigOption, EnsembleOption, ModeOption, OutputFormat, PoolOption, examples
from workers.cli.output import complain, results, tell
from workers.cli.settings import configure_cli_logging, overrides_of, stream_settings, with_only_pool
from workers.cli.standard_output import results_file
from workers.cli.tag import each_tagged

if TYPE_CHECKING:
    from el4ner.redaction.redaction_settings import RedactionSettings
    from el4ner.redaction.redactor import Redacted
    from el4ner.redaction.text_redaction import TextRedaction
    from workers.inputs.documents import NewDocument

__all__ = ["app"]

_TEXT = "text"


class RedactGroup(TyperGroup):
    """``el4ner redact FILE`` is ``el4ner redact text FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name in where it is left out."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("-h", "--help"))
        return super().parse_args(ctx, args if named else [_TEXT, *args])


app = typer.Typer(
    name="redact",
    cls=RedactGroup,
    help="Take names and personal data out of texts. `el4ner redact FILE` is short for `el4ner redact text FILE`.",
    epilog=examples(
        'el4ner redact "Ada Lovelace met Charles Babbage in London."',
        "el4ner redact --mask article.txt",
        "el4ner redact --surrogates article.txt",
        "el4ner redact tickets.csv --text-field body --pattern email --pattern card --format json",
        "(umask 077; el4ner redact keygen > redaction.keys)",
        'el4ner redact pseudonym "Ada Lovelace" --type person',
        "el4ner redact reveal article-17",
    ),
)


@app.command(_TEXT)
def redact_text(
    ctx: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT|FILE|-]", help="A text, a file, or - for standard input.")
    ] = None,
    *,
    mask: Annotated[
        bool, typer.Option("--mask", help="[person] in place of [person:PSEUDONYM], whatever the file says.")
    ] = False,
    surrogates: Annotated[
        bool,
        typer.Option("--surrogates", help="A made-up name in place of [person:PSEUDONYM], whatever the file says."),
    ] = False,
    pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Also email, card, iban, phone or national_id; may be repeated."),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Every line of text is a document.")] = False,
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
    """Take out of a text, a file or standard input what the models find in it, in this process: no Kafka needed.

    `[redaction]` in the configuration file says which types are taken out, and how. Without a key there,
    pseudonyms and made-up names are made with a key of this run's own: another run gives others.

    A document that cannot be tagged or redacted is reported on standard error and not written; the others go on, and
    the exit code is 1.
    """
    overrides = overrides_of(ensemble=ensemble, mode=mode)
    changes: dict[str, Any] = {"patterns": pattern} if pattern else {}
    if mask and surrogates:
        raise typer.BadParameter("--mask and --surrogates: only one of them can stand in place of a name")
    if mask or surrogates:
        action = "mask" if mask else "surrogate"
        changes |= {"action": action, "types": {}, "pools": {}, "reversible": False}
    configured = stream_settings(ctx, config, overrides | ({"redaction": changes} if changes else {}))
    settings = with_only_pool(configured, pool)
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
    from workers.redaction.named_types import unknown_names

    for mistake in unknown_names(configured):
        tell(mistake)
    redaction = _redaction(settings.redaction.masked() if mask else settings.redaction)
    from el4ner.redaction.redactor import Detection

    for document, tagged in each_tagged(settings, texts, batch, report, lambda: configure_cli_logging(ctx)):
        entities = [Detection(each.start, each.end, each.type, each.confidence) for each in tagged.entities]
        try:
            redacted = redaction.redact(tagged.text, entities, pool=tagged.pool)
        except DocumentError as error:
            report(DocumentError(f"{document.id}: {error}", code=error.code))
        else:
            _show(document, tagged.pool, redacted, settings.redaction, output)
    warn_of_replaced(decoder)
    if failures:
        raise typer.Exit(1)


@app.command("keygen")
def keygen(
    ctx: typer.Context,
    *,
    key_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The key's name. (default: the year and the month)")
    ] = None,
) -> None:
    """Print a new key as a line of `redaction.keys_file`. To rotate, put it before the lines that are there."""
    configure_cli_logging(ctx)
    from el4ner.redaction.key_ring import KEY_BYTES, KeyRing

    name = datetime.now(UTC).strftime("%Y-%m") if key_id is None else key_id
    line = f"{name}:{secrets.token_hex(KEY_BYTES)}"
    KeyRing.parse(line, "--id")
    results_file().write(line + "\n")


@app.command("pseudonym")
def pseudonym(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name as a text would have it.")],
    *,
    type_name: Annotated[str, typer.Option("--type", metavar="TYPE", help="The type that it is detected as.")],
    key_id: Annotated[
        str | None,
        typer.Option("--key", metavar="ID", help="The key's name. (default: the first, which makes what is new)"),
    ] = None,
    surrogate: Annotated[bool, typer.Option("--surrogate", help="The made-up name that stands in its place.")] = False,
    config: ConfigOption = None,
) -> None:
    """Print the pseudonym of a name, as redaction writes it under this key wherever the name stands in full.

    Whoever holds the key finds a person's documents by it. What people merged are several names: ask for each.
    """
    settings = stream_settings(ctx, config).redaction
    configure_cli_logging(ctx)
    from el4ner.errors import ConfigError
    from el4ner.redaction.key_ring import KeyRing, load_keys
    from el4ner.redaction.redactor import Detection, Redactor

    keys = load_keys(settings)
    if keys is None:
        raise ConfigError("redaction.keys_file: a pseudonym is made with a key")
    chosen = keys.current.id if key_id is None else key_id
    if chosen not in keys:
        raise ConfigError(f"--key: {no_such('key', chosen, list(keys))}")
    if not name.strip():
        raise ConfigError("NAME: there is no name in it")
    action = "surrogate" if surrogate else "pseudonym"
    rules = settings.model_copy(update={"action": action, "types": {}, "pools": {}, "floor": 0.0})
    redacted = Redactor(rules, KeyRing({chosen: keys[chosen]})).redact(name, [Detection(0, len(name), type_name)])
    results_file().write(redacted.text + "\n")


@app.command("reveal")
def reveal(
    ctx: typer.Context,
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="The document's id.")],
    *,
    output: Annotated[
        OutputFormat, typer.Option("--format", help="text: its text alone; json: the tagged document.")
    ] = OutputFormat.TEXT,
    config: ConfigOption = None,
) -> None:
    """Write the original of a redacted document, byte for byte, where redaction.reversible has kept it.

    It takes the key, and on the broker the right to read redacted-originals.
    """
    settings = stream_settings(ctx, config)
    configure_cli_logging(ctx)
    from el4ner.errors import ConfigError
    from el4ner.redaction.key_ring import load_keys
    from el4ner.redaction.sealed_originals import revealed
    from workers.messages.envelope import decode
    from workers.redaction.originals import latest_original
    from workers.topics import Topic

    keys = load_keys(settings.redaction)
    if keys is None:
        raise ConfigError("redaction.keys_file: an original is revealed with the key that it was encrypted with")
    original = revealed(latest_original(settings.kafka, document), document, keys)
    if output is OutputFormat.TEXT:
        original = decode(Topic.TAGGED_DOCUMENTS, original)["text"].encode()
    results_file().buffer.write(original)
    results_file().buffer.flush()


def _redaction(settings: RedactionSettings) -> TextRedaction:
    """By the settings' keys, or one of this run's own.

    Raises:
        ConfigError: the settings' key is none, or what finds personal data is not there.
    """
    from el4ner.redaction.key_ring import KEY_BYTES, KeyRing, load_keys
    from el4ner.redaction.text_redaction import TextRedaction

    if settings.needs_keys and settings.keys is None and settings.keys_file is None:
        what = "surrogates" if settings.action == "surrogate" else "pseudonyms"
        tell(f"no key is set: the {what} are this run's own (el4ner redact keygen makes a key)")
        return TextRedaction(settings, KeyRing.parse(f"this-run:{secrets.token_hex(KEY_BYTES)}", "this run"))
    return TextRedaction(settings, load_keys(settings))


def _show(
    document: NewDocument, pool: str | None, redacted: Redacted, settings: RedactionSettings, output: OutputFormat
) -> None:
    if output is OutputFormat.TEXT:
        results().print(redacted.text, end="" if redacted.text.endswith("\n") else "\n")
    else:
        from el4ner.redaction.text_redaction import redacted_document
        from el4ner.serialize import dumps

        value = redacted_document(
            redacted,
            settings,
            document=document.id,
            revision=document.revision,
            pool=pool,
            metadata=document.metadata or {},
        )
        results_file().write(dumps(value).decode() + "\n")
        results_file().flush()
