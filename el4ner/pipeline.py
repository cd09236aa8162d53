"""The method over documents: what the in-process tagger and the stream's workers both call.

Each stage is one function from a batch of documents to a batch of results, in the same order. A document that cannot be
processed gives a :class:`~el4ner.errors.DocumentError` in its place and costs the others nothing; an engine that fails
raises :class:`~el4ner.errors.EngineError` for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from el4ner.errors import DocumentError
from el4ner.types import Document, DocumentCandidates, DocumentEntities, DocumentTypes, TaggedDocument

__all__ = ["Pipeline", "assemble"]


class Pipeline:
    """Pools, retriever and engines, ready to work. Not thread-safe: one owner thread calls it."""

    def extract(self, documents: Sequence[Document]) -> list[DocumentCandidates | DocumentError]:
        """Segment, retrieve demonstrations, and collect every member's spans (stages 1 and 2)."""
        raise NotImplementedError

    def classify(self, batch: Sequence[DocumentCandidates]) -> list[DocumentTypes | DocumentError]:
        """Give every candidate a type or ``none`` (stage 3)."""
        raise NotImplementedError

    def validate(self, batch: Sequence[DocumentTypes]) -> list[DocumentEntities | DocumentError]:
        """Ask the verifier about every typed span that is no ``none`` (stage 4)."""
        raise NotImplementedError


def assemble(result: DocumentEntities | DocumentTypes, *, overlaps: str, min_confidence: float) -> TaggedDocument:
    """The final entities of a document: pure, no engine. From :class:`DocumentTypes` (validation never answered) the
    entities come without verdicts."""
    raise NotImplementedError
