"""A pool's spans and sentences as vectors: computed once, kept in a file, never per request."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from el4ner.pools.pool import Pool
from el4ner.retrieval.embedder import Embedder, Vectors

__all__ = ["PoolIndex"]

_FORMAT = "2"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolIndex:
    """Vectors of a pool.

    ``spans``: (S, D), the pool sentences' entity spans, sentence by sentence. An entity-free sentence has none, so span
    similarity never finds it (as in the paper; standing with its chunks instead, such sentences crowded out the others
    in pools that are poor in entities, and cost half of the recall there).
    ``first_span``: (N + 1,), sentence n has the rows ``first_span[n]:first_span[n + 1]``.
    ``sentences``: (N, D).
    """

    spans: Vectors
    first_span: npt.NDArray[np.int64]
    sentences: Vectors

    @classmethod
    def build(cls, pool: Pool, embedder: Embedder, *, progress: Callable[[int], None] | None = None) -> PoolIndex:
        """Embed every span and sentence of ``pool``; ``progress`` is told how many texts are done."""
        surfaces: list[str] = []
        first = [0]
        for sentence in pool.sentences:
            own = [span.text for span, _ in sentence.spans]
            surfaces.extend(own)
            first.append(len(surfaces))
        return cls(
            spans=embedder.embed(surfaces, progress=progress),
            first_span=np.asarray(first, dtype=np.int64),
            sentences=embedder.embed([sentence.text for sentence in pool.sentences], progress=progress),
        )

    @classmethod
    def open(
        cls, pool: Pool, embedder: Embedder, folder: Path, *, progress: Callable[[int], None] | None = None
    ) -> PoolIndex:
        """The index from its file in ``folder``, or built and written there. A damaged file is built anew."""
        path = cls.path(pool, embedder, folder)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                index = cls(stored["spans"], stored["first_span"], stored["sentences"])
            if len(index.sentences) == len(pool.sentences) and index.first_span[-1] == len(index.spans):
                return index
            log.warning("pool index is incomplete and is built anew", extra={"path": str(path)})
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("pool index is damaged and is built anew", extra={"path": str(path), "error": str(error)})
        index = cls.build(pool, embedder, progress=progress)
        index._write(path)
        return index

    @staticmethod
    def path(pool: Pool, embedder: Embedder, folder: Path) -> Path:
        """The file of this pool under this embedder: it changes whenever either does."""
        key = hashlib.sha256(f"{_FORMAT} {pool.fingerprint} {embedder.fingerprint}".encode()).hexdigest()[:16]
        return folder / f"{pool.fingerprint}-{key}.npz"

    def _write(self, path: Path) -> None:
        # Several workers may start at once: each writes a file of its own and renames it.
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, spans=self.spans, first_span=self.first_span, sentences=self.sentences)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def span_similarity(self, queries: Vectors, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Equation of span-level similarity, for one input sentence.

        For each pool sentence the mean over the input's spans, weighted, of the best cosine with one of that sentence's
        spans. ``queries`` (Q, D), ``weights`` (Q,) positive; returns (N,); −1 for a pool sentence without any span.
        """
        similarity = np.full(len(self.sentences), -1.0, dtype=np.float32)
        filled = np.flatnonzero(np.diff(self.first_span) > 0)
        if len(filled) and len(queries):
            cosines = queries @ self.spans.T
            best = np.maximum.reduceat(cosines, self.first_span[filled], axis=1)
            similarity[filled] = (weights / weights.sum()) @ best
        return similarity
