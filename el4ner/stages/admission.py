"""Which documents a stage takes: what is too large, or comes from another pool, is refused before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from el4ner.config import MethodSettings
from el4ner.errors import DocumentError
from el4ner.pools import Pool
from el4ner.stages.extract import check_spans
from el4ner.stages.views import SegmentedDocument
from el4ner.text.chunks import chunks, outermost
from el4ner.text.controls import CleanText
from el4ner.text.segment import segment
from el4ner.types import Document, DocumentCandidates, DocumentTypes

__all__ = ["check_text", "of_the_same_pool", "segmented"]

Judgeable = TypeVar("Judgeable", DocumentCandidates, DocumentTypes)
_NONE: Final[Mapping[str, Pool]] = MappingProxyType({})


def check_text(document: Document, limits: MethodSettings) -> None:
    """
    Raises:
        DocumentError: the text is too long, or none that can be written down.
    """
    if len(document.text) > limits.max_document_chars:
        raise DocumentError(
            f"the text has {len(document.text)} characters, more than method.max_document_chars = "
            f"{limits.max_document_chars}",
            code="document-too-long",
        )
    try:
        document.text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"the text has half of a surrogate pair at {error.start}, which no encoding of Unicode can carry",
            code="not-unicode",
        ) from error


def segmented(document: Document, pool: Pool, limits: MethodSettings, *, compares_chunks: bool) -> SegmentedDocument:
    """The document with the sentences of its clean text. ``compares_chunks``: retrieval will compare the text's chunks.

    Raises:
        DocumentError: there are too many sentences, or chunks.
    """
    view = CleanText.of(document.text)
    sentences = segment(view.text, pool.text_kind, max_chars=limits.max_sentence_chars)
    if len(sentences) > limits.max_sentences:
        raise DocumentError(
            f"the text has {len(sentences)} {'lines' if pool.text_kind == 'log' else 'sentences'}, more than "
            f"method.max_sentences = {limits.max_sentences}",
            code="too-many-sentences",
        )
    # Retrieval compares these before the candidates can be counted. They begin at different characters, so a shorter
    # text cannot have too many.
    if len(document.text) > limits.max_spans and compares_chunks:
        check_spans(sum(len(outermost(chunks(sentence.text, pool.text_kind))) for sentence in sentences), limits)
    return SegmentedDocument(document, pool, view, sentences)


def of_the_same_pool(item: Judgeable, pool: Pool, earlier: Mapping[str, Pool] = _NONE) -> Judgeable:
    """The item as the pool has it. Demonstrations are indices into a pool, so the stages of one document have to see
    the same pool: the same files. Where the pool was taught something between two stages, the later one goes by what it
    knows now, and demonstrations are those of the same text; without those that it has not, or that cannot be told.

    Args:
        item: what the stage before has said.
        pool: as it is here and now.
        earlier: what it was before, by fingerprint.

    Raises:
        DocumentError: the stage before saw other files.
    """
    seen = item.manifest.pool_fingerprint
    if seen != pool.fingerprint:
        if (item.manifest.pool_base or seen) != pool.lineage:
            raise DocumentError(
                f"pool {pool.name!r} is {pool.lineage} here, but {item.manifest.pool_base or seen} at the stage "
                "before: give all workers the same pool",
                code="pool-mismatch",
            )
        item = _with_demonstrations_of(item, pool, earlier.get(seen))
    if any(not 0 <= shown < len(pool.sentences) for sentence in item.sentences for shown in sentence.demonstrations):
        raise DocumentError(
            f"a demonstration is none of the {len(pool.sentences)} sentences of pool {pool.name!r}",
            code="pool-mismatch",
        )
    return item


def _with_demonstrations_of(item: Judgeable, pool: Pool, seen: Pool | None) -> Judgeable:
    if not any(sentence.demonstrations for sentence in item.sentences):
        return item
    places = {sentence.text: place for place, sentence in enumerate(pool.sentences)}

    def moved(shown: tuple[int, ...]) -> tuple[int, ...]:
        texts = [seen.sentences[place].text for place in shown if 0 <= place < len(seen.sentences)] if seen else []
        return tuple(places[text] for text in texts if text in places)

    sentences: Any = tuple(
        replace(sentence, demonstrations=moved(sentence.demonstrations)) for sentence in item.sentences
    )
    return replace(item, sentences=sentences)
