"""The k demonstrations of a sentence: span-level (the paper), sentence-level, random or none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import orjson

from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.pools.pool import Pool
from el4ner.retrieval.cache import RetrievalCache
from el4ner.retrieval.embedder import Embedder
from el4ner.retrieval.index import LabelledSurfaces, PoolIndex, PoolSurfaces
from el4ner.text.chunks import span_weight

__all__ = ["CachedRetriever", "Retriever", "UnshownRetriever", "make_retriever"]


class Retriever(Protocol):
    """Indices of pool sentences, most similar first."""

    @property
    def fingerprint(self) -> str:
        """Of everything but the pool that decides the result: kind, k, embedder, weights, who proposes the pool's
        spans."""

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """Demonstrations for each sentence. ``query_spans[i]`` are the surfaces proposed in sentence i.

        A pool sentence that is the input sentence itself is not returned: it would give the answer away when a pool is
        evaluated on its own sentences.
        """


class _Similarity:
    """Span-level or sentence-level: the k largest similarities, ties by the pool's order."""

    def __init__(
        self,
        kind: Literal["span", "sentence"],
        k: int,
        pool: Pool,
        embedder: Embedder,
        surfaces: PoolSurfaces,
        open_index: Callable[[], PoolIndex],
    ) -> None:
        self._kind = kind
        self._k = k
        self._pool = pool
        self._embedder = embedder
        self._open_index = open_index
        self.fingerprint = "-".join(filter(None, (kind, str(k), embedder.fingerprint, surfaces.fingerprint)))

    @cached_property
    def index(self) -> PoolIndex:
        """Opened when it is first used."""
        return self._open_index()

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        queries = [list(spans) if self._kind == "span" else [] for spans in query_spans]
        # One call for everything: spans of all sentences, and the sentences that have no span to go by.
        flat = [surface for spans in queries for surface in spans]
        whole = [sentence for sentence, spans in zip(sentences, queries, strict=True) if not spans]
        vectors = self._embedder.embed([*flat, *whole])
        inputs = []
        row = 0
        for spans in filter(None, queries):
            weights = np.asarray([span_weight(surface) for surface in spans], dtype=np.float32)
            inputs.append((vectors[row : row + len(spans)], weights))
            row += len(spans)
        by_spans = iter(self.index.span_similarities(inputs))
        by_sentence = iter(self.index.sentences @ vector for vector in vectors[row:])
        return [
            self._best(next(by_spans if spans else by_sentence), sentence)
            for sentence, spans in zip(sentences, queries, strict=True)
        ]

    def _best(self, similarity: np.ndarray[tuple[int], np.dtype[np.float32]], sentence: str) -> tuple[int, ...]:
        # One more than k, in case the sentence itself is among them.
        count = min(self._k + 1, len(similarity))
        candidates = np.argpartition(-similarity, count - 1)[:count]
        ordered = candidates[np.lexsort((candidates, -similarity[candidates]))]
        others = [int(i) for i in ordered if self._pool.sentences[i].text != sentence]
        return tuple(others[: self._k])


class _Random:
    """k pool sentences by chance; the same sentence always gets the same ones."""

    def __init__(self, k: int, pool: Pool, seed: int) -> None:
        self._k = k
        self._pool = pool
        self._seed = seed
        self.fingerprint = f"random-{k}-{seed}"

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        del query_spans
        return [self._draw(sentence) for sentence in sentences]

    def _draw(self, sentence: str) -> tuple[int, ...]:
        digest = hashlib.sha256(f"{self._seed}:{sentence}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(len(self._pool.sentences))
        others = [int(i) for i in order[: self._k + 1] if self._pool.sentences[i].text != sentence]
        return tuple(others[: self._k])


class _None:
    """No demonstrations: zero-shot."""

    fingerprint = "none"

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        del query_spans
        return [() for _ in sentences]


class UnshownRetriever:
    """Where no prompt shows demonstrations: as zero-shot to whoever asks for the fingerprint, and made when somebody
    retrieves all the same, to try out what a prompt would show.

    ``make`` gives the retriever.
    """

    fingerprint = "none"

    def __init__(self, make: Callable[[], Retriever]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Retriever:
        return self._make()

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """The demonstrations that a prompt would show."""
        return self._made.retrieve(sentences, query_spans)


class CachedRetriever:
    """A retriever of at most ``k`` behind a cache, keyed by pool, retriever settings, sentence and query spans."""

    def __init__(self, inner: Retriever, pool: Pool, cache: RetrievalCache, *, k: int) -> None:
        self._inner = inner
        self._k = k
        self._pool = pool
        self._cache = cache
        self.fingerprint = inner.fingerprint

    def retrieve(self, sentences: Sequence[str], query_spans: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        """The demonstrations of each sentence, from the cache where it knows them."""
        keys = [self._key(s, q) for s, q in zip(sentences, query_spans, strict=True)]
        results = [self._decode(value) for value in self._cache.get_many(keys)]
        missing = [i for i, result in enumerate(results) if result is None]
        if missing:
            retrieved = self._inner.retrieve([sentences[i] for i in missing], [query_spans[i] for i in missing])
            results = list(results)
            fresh: dict[str, bytes] = {}
            for i, indices in zip(missing, retrieved, strict=True):
                results[i] = indices
                fresh[keys[i]] = orjson.dumps(indices)
            self._cache.set_many(fresh)
        return [result for result in results if result is not None]

    def _key(self, sentence: str, spans: Sequence[str]) -> str:
        content = hashlib.sha256(orjson.dumps([sentence, list(spans)])).hexdigest()
        return f"retrieval:{self._pool.fingerprint}:{self._inner.fingerprint}:{content}"

    def _decode(self, value: bytes | None) -> tuple[int, ...] | None:
        """What the cache holds, unless it is not what we wrote: then it is a miss, never an error."""
        size = len(self._pool.sentences)
        if value is None or len(value) > 2 + self._k * (1 + len(str(size))):
            return None
        try:
            decoded = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(decoded, list) or not all(type(i) is int and 0 <= i < size for i in decoded):  # no True
            return None
        return tuple(decoded) if len(set(decoded)) == len(decoded) <= self._k else None


class _Told:
    """Tells a progress of embedded texts, from the first on: an index that is read from its file needs no word."""

    def __init__(self, pool: Pool, surfaces: PoolSurfaces, progress: Progress) -> None:
        self._pool = pool
        self._surfaces = surfaces
        self._progress = progress
        self._begun = False

    def __call__(self, texts: int) -> None:
        if not self._begun:
            self._begun = True
            surfaces = {text for in_sentence in self._surfaces.by_sentence() for text in in_sentence}
            total = len(surfaces) + len({sentence.text for sentence in self._pool.sentences})
            self._progress.start(f"embedding pool {self._pool.name}", total)
        self._progress.advance(texts)


def make_retriever(
    kind: Literal["span", "sentence", "random", "none"],
    pool: Pool,
    *,
    k: int,
    seed: int = 0,
    embedder: Embedder | None = None,
    index_dir: Path | None = None,
    surfaces: PoolSurfaces | None = None,
    cache: RetrievalCache | None = None,
    progress: Progress = NO_PROGRESS,
    at_first_use: bool = False,
    build: Callable[[], PoolIndex] | None = None,
) -> Retriever:
    """The retriever of one pool. ``span`` and ``sentence`` need ``embedder``, and ``index_dir`` or ``build``, which
    makes an index that is not kept; ``span`` finds the pool's sentences by ``surfaces`` (None: the labelled ones).
    ``progress`` is told how far the index is, where it has to be made: now, or ``at_first_use``."""
    if kind == "none":
        return _None()
    if kind == "random":
        return _Random(k, pool, seed)
    if embedder is None or (index_dir is None and build is None):
        raise ValueError(f"{kind} retrieval needs an embedder and a folder for its index")

    found_by = surfaces if kind == "span" and surfaces is not None else LabelledSurfaces(pool)

    def open_index() -> PoolIndex:
        if index_dir is None:
            assert build is not None
            return build()
        told = _Told(pool, found_by, progress)
        index = PoolIndex.open(pool, embedder, index_dir, surfaces=found_by, progress=told)
        progress.done()
        return index

    retriever = _Similarity(kind, k, pool, embedder, found_by, open_index)
    if not at_first_use:
        assert retriever.index is not None
    return CachedRetriever(retriever, pool, cache, k=k) if cache is not None else retriever
