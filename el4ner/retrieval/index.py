"""A pool's spans and sentences as vectors: computed once, kept in a file, never per request."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from el4ner.models.files import DAMAGED_ARRAYS, written_atomically
from el4ner.pools.pool import Pool
from el4ner.retrieval.embedder import Embedder, Vectors

__all__ = ["LabelledSurfaces", "PoolIndex", "PoolSurfaces"]

_FORMAT = "3"
_QUERIES = 64
"""The most queries whose cosines with all of a pool's surfaces are in memory at a time."""
log = logging.getLogger(__name__)


class PoolSurfaces(Protocol):
    """The spans by which a pool's sentences are found (``retrieval.pool_spans``)."""

    @property
    def fingerprint(self) -> str:
        """Of everything but the pool that decides them; empty for the labelled ones."""

    def by_sentence(self) -> Sequence[Sequence[str]]:
        """For each sentence of the pool, in order, its surfaces, each once. May take long."""


class LabelledSurfaces(PoolSurfaces):
    """The labelled entities."""

    fingerprint = ""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @override
    def by_sentence(self) -> Sequence[Sequence[str]]:
        return [list(dict.fromkeys(span.text for span, _ in sentence.spans)) for sentence in self._pool.sentences]


@dataclass(frozen=True)
class PoolIndex:
    """Vectors of a pool.

    ``surfaces``: (U, D), the different surfaces of the pool's spans, each once.
    ``spans``: (S,), the pool sentences' spans, sentence by sentence: rows of ``surfaces``, in a sentence each once.
    With labelled spans an entity-free sentence has none, so span similarity never finds it (standing with its chunks
    instead, such sentences crowded out the others in pools that are poor in entities, and cost half of the recall
    there).
    ``first_span``: (N + 1,), sentence n has the spans ``first_span[n]:first_span[n + 1]``.
    ``sentences``: (N, D).
    """

    surfaces: Vectors
    spans: npt.NDArray[np.int64]
    first_span: npt.NDArray[np.int64]
    sentences: Vectors

    @classmethod
    def build(
        cls,
        pool: Pool,
        embedder: Embedder,
        *,
        surfaces: Sequence[Sequence[str]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> PoolIndex:
        """Embed every span and sentence of ``pool``; ``progress`` is told how many texts are done. ``surfaces``: of
        each sentence; None takes the labelled ones."""
        rows: dict[str, int] = {}
        spans: list[int] = []
        first = [0]
        for in_sentence in LabelledSurfaces(pool).by_sentence() if surfaces is None else surfaces:
            spans += [rows.setdefault(text, len(rows)) for text in in_sentence]
            first.append(len(spans))
        return cls(
            surfaces=embedder.embed(list(rows), progress=progress),
            spans=np.asarray(spans, dtype=np.int64),
            first_span=np.asarray(first, dtype=np.int64),
            sentences=embedder.embed([sentence.text for sentence in pool.sentences], progress=progress),
        )

    @classmethod
    def open(
        cls,
        pool: Pool,
        embedder: Embedder,
        folder: Path,
        *,
        surfaces: PoolSurfaces | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> PoolIndex:
        """The index from its file in ``folder``, or built and written there. A damaged file is built anew.
        ``surfaces`` None: the labelled ones."""
        surfaces = surfaces or LabelledSurfaces(pool)
        path = cls.path(pool, embedder, folder, surfaces.fingerprint)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                index = cls(stored["surfaces"], stored["spans"], stored["first_span"], stored["sentences"])
            if index._is_whole(pool):
                return index
            log.warning("pool index is incomplete and is built anew", extra={"path": str(path)})
        except FileNotFoundError:
            pass
        except DAMAGED_ARRAYS as error:
            log.warning("pool index is damaged and is built anew", extra={"path": str(path), "error": str(error)})
        index = cls.build(pool, embedder, surfaces=surfaces.by_sentence(), progress=progress)
        with written_atomically(path) as out:
            np.savez(
                out,
                surfaces=index.surfaces,
                spans=index.spans,
                first_span=index.first_span,
                sentences=index.sentences,
            )
        return index

    @staticmethod
    def path(pool: Pool, embedder: Embedder, folder: Path, surfaces: str = "") -> Path:
        """The file of this pool under this embedder, by the surfaces with this fingerprint: it changes whenever one of
        them does."""
        content = " ".join(filter(None, (_FORMAT, pool.fingerprint, embedder.fingerprint, surfaces)))
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        return folder / f"{pool.fingerprint}-{key}.npz"

    def _is_whole(self, pool: Pool) -> bool:
        ends = len(self.first_span) == len(pool.sentences) + 1 and self.first_span[-1] == len(self.spans)
        known = not len(self.spans) or int(self.spans.max()) < len(self.surfaces)
        return len(self.sentences) == len(pool.sentences) and bool(ends) and known

    def span_similarity(self, queries: Vectors, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Equation of span-level similarity, for one input sentence; see :meth:`span_similarities`."""
        return self.span_similarities([(queries, weights)])[0]

    def span_similarities(
        self, inputs: Sequence[tuple[Vectors, npt.NDArray[np.float32]]]
    ) -> list[npt.NDArray[np.float32]]:
        """Equation of span-level similarity, for several input sentences.

        For each pool sentence the mean over the input's spans, weighted, of the best cosine with one of that sentence's
        spans. Each input is ``queries`` (Q, D) and ``weights`` (Q,), positive; each result (N,): −1 for a pool sentence
        without any span.
        """
        similarities: list[npt.NDArray[np.float32]] = []
        while len(similarities) < len(inputs):
            portion = [inputs[len(similarities)]]
            for following in inputs[len(similarities) + 1 :]:
                if sum(len(weights) for _, weights in portion) + len(following[1]) > _QUERIES:
                    break
                portion.append(following)
            similarities.extend(self._similarities(portion))
        return similarities

    def _similarities(
        self, inputs: Sequence[tuple[Vectors, npt.NDArray[np.float32]]]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Together, so that surfaces and cosines are gone through once and not for each input."""
        order, layers = self._layers
        shares = np.zeros((sum(len(weights) for _, weights in inputs), len(inputs)), dtype=np.float32)
        row = 0
        for column, (_, weights) in enumerate(inputs):
            shares[row : row + len(weights), column] = weights / weights.sum()
            row += len(weights)
        means = None
        if layers and row:
            cosines = self.surfaces @ np.concatenate([queries for queries, _ in inputs]).T
            best = cosines.take(layers[0], axis=0)
            for layer in layers[1:]:
                np.maximum(best[: len(layer)], cosines.take(layer, axis=0), out=best[: len(layer)])
            means = best @ shares
        for column, (_, weights) in enumerate(inputs):
            similarity = np.full(len(self.sentences), -1.0, dtype=np.float32)
            if means is not None and len(weights):
                similarity[order] = means[:, column]
            yield similarity

    @cached_property
    def _layers(self) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
        """Sentences that have spans, those with most spans first; and the first span of each, the second of each that
        has two, and so on. Maxima over them are a few passes over whole arrays, not a small step for each sentence."""
        counts = np.diff(self.first_span)
        order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
        most = int(counts[order[0]]) if len(order) else 0
        firsts = self.first_span[order]
        layers = [self.spans[firsts[: int((counts[order] > number).sum())] + number] for number in range(most)]
        return order, layers
