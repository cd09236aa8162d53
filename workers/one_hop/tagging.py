"""All stages in one call of the pipeline, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from typing_extensions import override

from el4ner.serialize import tagged_to_json
from el4ner.types import Document, TaggedDocument, Usage
from workers.messages.envelope import Record, document_of
from workers.roles import PIPELINE
from workers.stages.isolation import Result
from workers.stages.stage import Stage
from workers.stages.stage_telemetry import StageTelemetry
from workers.topics import Topic

__all__ = ["TAGGING", "TaggingTelemetry"]


def _parse(record: Record, data: Mapping[str, Any]) -> tuple[Document, Document]:
    document = document_of(record, data)
    return document, document


TAGGING: Final[Stage[Document, TaggedDocument]] = Stage(
    PIPELINE,
    before=None,
    input=Topic.DOCUMENTS,
    output=Topic.TAGGED_DOCUMENTS,
    parse=_parse,
    encode=tagged_to_json,
    call=lambda pipeline, documents: pipeline.tag(documents),
)


class TaggingTelemetry(StageTelemetry):
    """Tokens are counted by the stage that has asked for them, as with the stages apart."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._counted: dict[str, Usage] = {}

    @override
    def batch(self, results: Sequence[Result[Any]], seconds: float) -> None:
        self.metrics.stage_batch(self._stage, len(results), seconds)

    def tokens(self, usage: Mapping[str, Usage]) -> None:
        """``usage``: by stage, since the pipeline was loaded."""
        for stage, total in usage.items():
            new = total - self._counted.get(stage, Usage())
            self._counted[stage] = total
            self.metrics.tokens(stage, prompt=new.prompt_tokens, cached=new.cached_tokens, new=new.new_tokens)
