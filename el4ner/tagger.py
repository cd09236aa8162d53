"""The stages in one process: texts in, tagged documents out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from el4ner.sliced_reading import read_in_slices
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
        self._reading = read_in_slices(pipeline, ())

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
        at_first_use: bool = False,
    ) -> Tagger:
        """Load what the configuration names; see :func:`el4ner.config.load_settings` for its sources, and
        :func:`~el4ner.loader.load_pipeline` for the rest.

        Args:
            at_first_use: pools that have yet to be read are not read now, but by :meth:`read_pools`, or when their
                first document comes.

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
        return cls(
            load_pipeline(
                settings,
                cache=cache,
                answers=answers,
                cache_dir=cache_dir,
                progress=progress,
                at_first_use=at_first_use,
            )
        )

    @property
    def unread_pools(self) -> list[str]:
        """Pools that have yet to be read."""
        return self.pipeline.unread_pools

    def read_pools(self, *names: str) -> Iterator[str]:
        """Read these pools, or all that have yet to be read: each step of the iterator reads a slice of one (16
        sentences at most), and gives its name. Between two steps documents of the pools that are read can be tagged::

            for _ in tagger.read_pools("contracts"):
                for document in tagger.tag(waiting_news):
                    ...

        Where a document needs a pool that is not read, :meth:`tag` takes the steps that are left of the pool that is
        being read, and then reads the document's, if that is another. What was read is kept, also if no further step is
        taken; whoever calls this again ends the iterator before.

        Raises:
            PoolReadingError: a pool cannot be read.
        """
        self._reading.close()
        self._reading = read_in_slices(self.pipeline, names or self.unread_pools)
        return self._reading

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
            self._finish_reading(batch)
            yield from self.pipeline.tag(batch)

    def _finish_reading(self, batch: Sequence[Document]) -> None:
        """Of the pool that is being read, if one of these documents needs a pool that is not."""
        unread, default = self.unread_pools, self.pipeline.settings.pools.default
        if any((document.pool or default) in unread for document in batch):
            while self.pipeline.pools_read_beside and next(self._reading, None) is not None:
                pass

    def close(self) -> None:
        """Close the engines."""
        self._reading.close()
        self.pipeline.close()

    def __enter__(self) -> Tagger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
