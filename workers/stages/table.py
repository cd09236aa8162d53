"""The stages of the stream: what each one reads, writes and asks the pipeline. Nothing else lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from el4ner.serialize import (
    candidates_from_json,
    candidates_to_json,
    entities_to_json,
    types_from_json,
    types_to_json,
)
from el4ner.types import Document, DocumentCandidates, DocumentEntities, DocumentTypes
from workers.config import KafkaSettings
from workers.messages.document_paths import DocumentPaths
from workers.messages.envelope import Record, document_of
from workers.stages.stage import Parse, Stage
from workers.topics import Topic

__all__ = ["CLASSIFY", "EXTRACT", "STAGE_TABLE", "VALIDATE", "reading"]

_Result = TypeVar("_Result", DocumentCandidates, DocumentTypes)


def _parse_document(record: Record, data: Mapping[str, Any]) -> tuple[Document, Document]:
    document = document_of(record, data)
    return document, document


def _parse_result(from_json: Callable[[Mapping[str, Any]], _Result]) -> Parse[_Result]:
    """Reads the answer of the stage before."""

    def parse(_record: Record, data: Mapping[str, Any]) -> tuple[Document, _Result]:
        result = from_json(data)
        return result.document, result

    return parse


EXTRACT: Final[Stage[Document, DocumentCandidates]] = Stage(
    "extract",
    before=None,
    input=Topic.DOCUMENTS,
    output=Topic.SPAN_CANDIDATES,
    parse=_parse_document,
    encode=candidates_to_json,
    call=lambda pipeline, documents: pipeline.extract(documents),
)
CLASSIFY: Final[Stage[DocumentCandidates, DocumentTypes]] = Stage(
    "classify",
    before="extract",
    input=Topic.SPAN_CANDIDATES,
    output=Topic.TYPED_ENTITIES,
    parse=_parse_result(candidates_from_json),
    encode=types_to_json,
    call=lambda pipeline, candidates: pipeline.classify(candidates),
)
VALIDATE: Final[Stage[DocumentTypes, DocumentEntities]] = Stage(
    "validate",
    before="classify",
    input=Topic.TYPED_ENTITIES,
    output=Topic.VALIDATION_VERDICTS,
    parse=_parse_result(types_from_json),
    encode=entities_to_json,
    call=lambda pipeline, types: pipeline.validate(types),
)
STAGE_TABLE: Final[Mapping[str, Stage[Any, Any]]] = {stage.name: stage for stage in (EXTRACT, CLASSIFY, VALIDATE)}


def reading(stage: Stage[Any, Any], settings: KafkaSettings) -> Stage[Any, Any]:
    """The stage as it reads these messages: that of ``documents`` finds documents where the settings say they are."""
    return replace(stage, paths=DocumentPaths.of(settings)) if stage.input is Topic.DOCUMENTS else stage
