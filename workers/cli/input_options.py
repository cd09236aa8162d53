"""Options of the commands that read documents, and what is said of what they read."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.output import complain
from workers.inputs.file_formats import InputFormat

if TYPE_CHECKING:
    from workers.inputs.document_fields import Fields
    from workers.inputs.lines import Decoder

__all__ = [
    "DelimiterOption",
    "EncodingOption",
    "ErrorsOption",
    "IdFieldOption",
    "InputFormat",
    "MetadataOption",
    "TextFieldOption",
    "UnreadableBytes",
    "fields_of",
    "warn_of_replaced",
]


class UnreadableBytes(StrEnum):
    """What becomes of bytes that are no text in the file's encoding."""

    STRICT = "strict"
    REPLACE = "replace"


def _encoding(name: str | None) -> str | None:
    if name is None:
        return None
    from workers.inputs.encodings import known_encoding

    try:
        return known_encoding(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


TextFieldOption = Annotated[
    str,
    typer.Option("--text-field", "--text-column", metavar="NAME", help="JSON Lines, CSV: the field with the text."),
]
IdFieldOption = Annotated[
    str,
    typer.Option("--id-field", "--id-column", metavar="NAME", help="JSON Lines, CSV: the field with the id, if any."),
]
MetadataOption = Annotated[
    bool,
    typer.Option("--metadata", help="Hand unknown fields on as the document's metadata. (default: they are an error)"),
]
DelimiterOption = Annotated[
    str, typer.Option(metavar="CHAR", help="CSV: what separates columns; often ; in files of spreadsheets.")
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", callback=_encoding, help="Encoding of the input. (default: by its byte order mark, else UTF-8)"
    ),
]
ErrorsOption = Annotated[
    UnreadableBytes,
    typer.Option("--errors", help="Bytes that are no text: an error, or U+FFFD, and how many are said."),
]


def fields_of(text: str, own_id: str, metadata: bool, delimiter: str) -> Fields:
    """What the options say of the fields.

    Raises:
        typer.BadParameter: they cannot be meant so.
    """
    from workers.inputs.document_fields import Fields

    delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise typer.BadParameter("has to be one character, and no quote", param_hint="--delimiter")
    if text == own_id:
        raise typer.BadParameter(f"{text!r} cannot be the text and the id", param_hint="--id-field")
    return Fields(text, own_id, metadata, delimiter)


def warn_of_replaced(decoder: Decoder) -> None:
    """Say how much of the input was no text, if any was."""
    if decoder.replaced:
        complain(
            f"{decoder.replaced} times bytes that are no text were read as U+FFFD, in {decoder.lines} lines; "
            f"the first: {decoder.first}",
            severity="warning",
        )
