"""The stages in one process: texts in, tagged documents out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from el4ner.config import STREAM_SECTIONS, Settings, load_settings
from el4ner.errors import DocumentError
from el4ner.loader import load_pipeline
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.pipeline import Pipeline
from el4ner.repeats import AnswerStore
from el4ner.retrieval import RetrievalCache
from el4ner.types import Document, TaggedDocument

__all__ = ["Tagger"]


class Tagger:
    """Tags documents with the same stage functions that the stream's workers call. Not thread-safe.

    >>> with Tagger.from_config() as tagger:                                        # doctest: +SKIP
    ...     for document in tagger.tag(["Ada Lovelace met Charles Babbage in London."]):
    ...         print([(entity.text, entity.type) for entity in document.entities])
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @classmethod
    def from_config(
        cls,
        path: Path | str | None = None,
        *,
        overrides: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
        cache: RetrievalCache | None = None,
        answers: AnswerStore | None = None,
        cache_dir: Path | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Tagger:
        """Load what the configuration names; see :func:`el4ner.config.load_settings` for its sources, and
        :func:`~el4ner.loader.load_pipeline` for the rest.

        Raises:
            ConfigError, ModelError, PoolError: what cannot be loaded, and how to mend it.
        """
        settings = load_settings(
            Settings,
            Path(path) if path is not None else None,
            environ=environ,
            overrides=overrides,
            passed_over=STREAM_SECTIONS,
        )
        return cls(load_pipeline(settings, cache=cache, answers=answers, cache_dir=cache_dir, progress=progress))

    def tag(self, texts: Iterable[str | Document], *, batch_size: int = 16) -> Iterator[TaggedDocument]:
        """Tag documents, in order. A plain string gets its position as its id.

        Raises:
            DocumentError: a document cannot be processed (too large, a pool that is not hosted). Use
                :meth:`tag_or_error` to go on with the others.
            EngineError: a model failed.
        """
        for result in self.tag_or_error(texts, batch_size=batch_size):
            if isinstance(result, DocumentError):
                raise result
            yield result

    def tag_or_error(
        self, texts: Iterable[str | Document], *, batch_size: int = 16
    ) -> Iterator[TaggedDocument | DocumentError]:
        """As :meth:`tag`, with the error in the place of a document that cannot be processed."""
        documents = (
            text if isinstance(text, Document) else Document(str(number), text) for number, text in enumerate(texts)
        )
        while batch := list(islice(documents, batch_size)):
            yield from self.pipeline.tag(batch)

    def close(self) -> None:
        """Close the engines."""
        self.pipeline.close()

    def __enter__(self) -> Tagger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
