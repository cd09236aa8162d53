"""A pool's spans as one encoder sees them: labelled entities, and proposals that are none. Read once, then a file."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from el4ner.engines.base import States
from el4ner.engines.wrapped import Call
from el4ner.evidence.encoders import SpanEncoder
from el4ner.evidence.prepared import PreparedEvidence, PreparedFile, pack, unpack
from el4ner.evidence.reading import at_once, slices
from el4ner.models.files import DAMAGED_ARRAYS, written_atomically
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.text.proposal_limits import cost
from el4ner.types import Span

__all__ = ["PoolSpans", "SpanMemory", "chosen_sentences", "drawn"]

MOST_WITHOUT: Final = 0.2
"""Of the sentences that are read of a larger pool, as long as there are others: the share of those without any entity.
Where most of a pool's sentences have none, most of what is read would otherwise say only what is no entity."""
_FORMAT: Final = "1"
log = logging.getLogger(__name__)

Propose = Callable[[PoolSentence], Sequence[Span]]
"""A pool sentence's proposals, as if it were not in the pool; offsets are the sentence's."""


def drawn(texts: Sequence[str], limit: int, *, salt: str = "") -> list[int]:
    """Places of at most ``limit`` texts, ascending: all, or those that a hash of the text draws. Who draws from what it
    has drawn already needs another hash (``salt``)."""
    digests = [hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).digest() for text in texts]
    return sorted(sorted(range(len(texts)), key=lambda place: digests[place])[:limit])


def chosen_sentences(pool: Pool, limit: int) -> list[int]:
    """Indices of the pool sentences that are read, in pool order: all, or ``limit`` (``method.pool_sentences``), drawn
    by a hash of their text.

    Of those that are drawn at most :data:`MOST_WITHOUT` have no entity, if the others suffice;
    :attr:`PoolSpans.times` says how often each of these then counts.
    """
    if len(pool.sentences) <= limit:
        return list(range(len(pool.sentences)))
    with_some = [place for place, sentence in enumerate(pool.sentences) if sentence.spans]
    without = [place for place, sentence in enumerate(pool.sentences) if not sentence.spans]
    wanted = round(limit * min(MOST_WITHOUT, len(without) / len(pool.sentences)))
    wanted = max(wanted, limit - len(with_some))

    def drawn_of(places: Sequence[int], count: int) -> list[int]:
        return [places[index] for index in drawn([pool.sentences[place].text for place in places], count)]

    return sorted([*drawn_of(without, wanted), *drawn_of(with_some, limit - wanted)])


def _empty_weight(pool: Pool, chosen: Sequence[int]) -> float:
    """How many sentences of the pool one without entities stands for, against one with some, if ``chosen`` are read."""
    whole = Counter(bool(sentence.spans) for sentence in pool.sentences)
    read = Counter(bool(pool.sentences[place].spans) for place in chosen)
    if not read[True] or not read[False]:
        return 1.0
    return (whole[False] / read[False]) / (whole[True] / read[True])


@dataclass(frozen=True, eq=False)
class PoolSpans:
    """The spans that stand for a pool, without any vectors.

    ``labels[i]`` is an index into the pool's types, or their number for none. ``sentences[i]`` is the pool sentence of
    span i; equal sentences count as one (the first). ``proposed[i]``: whether a proposer would have found it.
    ``times[s]``: how often the sentence ``texts[s]`` counts where something is estimated, those without entities more
    often where a smaller part of them was read (:func:`chosen_sentences`); None: each once.
    """

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    labels: npt.NDArray[np.int64]
    sentences: npt.NDArray[np.int64]
    proposed: npt.NDArray[np.bool_]
    times: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, pool: Pool, propose: Propose, *, limit: int, max_chars: int | None = None) -> PoolSpans:
        """Labelled spans and proposals of the chosen sentences, each once, in the order of the text.

        Sentences of more than ``max_chars`` are left out: the stream has none so long, and a model may not read it.
        """
        types = {label: index for index, label in enumerate(pool.types)}
        labels: list[int] = []
        owners: list[int] = []
        proposed: list[bool] = []
        texts: list[str] = []
        spans: list[tuple[Span, ...]] = []
        first_with: dict[str, int] = {}
        times: list[float] = []
        chosen = chosen_sentences(pool, limit)
        empty = _empty_weight(pool, chosen)
        for index in chosen:
            sentence = pool.sentences[index]
            if max_chars is not None and len(sentence.text) > max_chars:
                log.warning("a pool sentence is too long to be compared with", extra={"where": sentence.where})
                continue
            owner = first_with.setdefault(sentence.text, index)
            gold = {span: types[label] for span, label in sentence.spans}
            proposals = set(propose(sentence))
            in_sentence = tuple(sorted(gold.keys() | proposals))
            texts.append(sentence.text)
            times.append(1.0 if sentence.spans else empty)
            spans.append(in_sentence)
            labels += [gold.get(span, len(types)) for span in in_sentence]
            owners += [owner] * len(in_sentence)
            proposed += [span in proposals for span in in_sentence]
        return cls(
            tuple(texts),
            tuple(spans),
            np.asarray(labels, dtype=np.int64),
            np.asarray(owners, dtype=np.int64),
            np.asarray(proposed, dtype=np.bool_),
            None if empty == 1 else np.asarray(times),
        )

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """How often each span counts: as its sentence does."""
        times = np.ones(len(self.texts)) if self.times is None else self.times
        return np.repeat(times, np.diff(self.first_rows))

    @cached_property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """The row of each sentence's first span, and behind them the number of rows."""
        return np.cumsum([0, *(len(in_sentence) for in_sentence in self.spans)], dtype=np.int64)

    def rows(self, sentences: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows of the spans of these sentences (places in ``texts``), in their order."""
        first = self.first_rows
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(first[i], first[i + 1]) for i in sentences)])

    def with_taught(
        self, added: PoolSpans, *, dropped: Collection[str], none: tuple[int, int]
    ) -> tuple[PoolSpans, npt.NDArray[np.int64]]:
        """These spans without those of the texts ``dropped``, and ``added`` behind them; and the rows of those that
        are left.

        ``none``: the label of what is no entity, here, and in ``added`` and the result, which may have more types.
        """
        kept = [place for place, text in enumerate(self.texts) if text not in dropped]
        rows = self.rows(kept)
        labels, sentences = self.labels[rows], self.sentences[rows]
        before = int(self.sentences.max(initial=-1)) + 1
        return PoolSpans(
            tuple(self.texts[place] for place in kept) + added.texts,
            tuple(self.spans[place] for place in kept) + added.spans,
            np.concatenate([np.where(labels == none[0], none[1], labels), added.labels]),
            np.concatenate([sentences, added.sentences + before]),
            np.concatenate([self.proposed[rows], added.proposed]),
            None if self.times is None else np.concatenate([self.times[kept], np.ones(len(added.texts))]),
        ), rows

    def pieces(self, none: int) -> npt.NDArray[np.bool_]:
        """For each span whether it is none (the label ``none``) and overlaps an entity of its sentence."""
        if none not in self._pieces:
            self._pieces[none] = self._found_pieces(none)
        return self._pieces[none]

    @cached_property
    def _pieces(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Every source that compares with these spans asks for them."""
        return {}

    def _found_pieces(self, none: int) -> npt.NDArray[np.bool_]:
        pieces = np.zeros(len(self.labels), dtype=np.bool_)
        for first, in_sentence in zip(self.first_rows.tolist(), self.spans, strict=False):
            labelled = self.labels[first : first + len(in_sentence)] < none
            starts = np.array([span.start for span in in_sentence], dtype=np.int64)
            ends = np.array([span.end for span in in_sentence], dtype=np.int64)
            overlaps = (starts[:, None] < ends[labelled]) & (starts[labelled] < ends[:, None])
            pieces[first : first + len(in_sentence)] = ~labelled & overlaps.any(axis=1)
        return pieces

    @cached_property
    def fingerprint(self) -> str:
        """Of texts, spans, labels, and which of the spans are proposed."""
        digest = hashlib.sha256()
        for text, spans in zip(self.texts, self.spans, strict=True):
            digest.update(repr((text, [(span.start, span.end) for span in spans])).encode("utf-8", "surrogatepass"))
        digest.update(self.labels.tobytes())
        digest.update(self.proposed.tobytes())
        if self.times is not None:
            digest.update(self.times.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class SpanMemory:
    """Vectors of :class:`PoolSpans`, comparable by dot product.

    ``vectors`` ``[layers, spans, dimensions]``: standardised by ``centre`` and ``scale`` ``[layers, dimensions]``, then
    of unit length.

    ``prepared``: the digest of the file of :mod:`el4ner.evidence.prepared` that it is from; None: it was read here.
    """

    vectors: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    prepared: str | None = None

    @classmethod
    def of(cls, states: States) -> SpanMemory:
        """From raw states ``[spans, layers, dimensions]``."""
        centre = states.mean(axis=0) if len(states) else np.zeros(states.shape[1:], dtype=np.float32)
        # A dimension that hardly moves would be blown up: half a percent of the largest spread is the least.
        spread = states.std(axis=0) if len(states) else np.ones(states.shape[1:], dtype=np.float32)
        scale = np.maximum(spread, 5e-3 * np.maximum(spread.max(), 1e-6))
        memory = cls(np.empty(0, np.float32), centre, scale)
        return cls(memory.comparable(states), centre, scale)

    def comparable(self, states: States) -> npt.NDArray[np.float32]:
        """Raw states ``[spans, layers, dimensions]`` as ``[layers, spans, dimensions]`` of unit length."""
        standard = ((states - self.centre) / self.scale).transpose(1, 0, 2)
        length = np.linalg.norm(standard, axis=2, keepdims=True)
        unit: npt.NDArray[np.float32] = (standard / np.maximum(length, 1e-9)).astype(np.float32)
        return unit

    def with_taught(self, added: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> SpanMemory:
        """The vectors of ``rows``, and behind them others that :meth:`comparable` has given."""
        return replace(self, vectors=np.concatenate([self.vectors[:, rows], added], axis=1))

    @classmethod
    def open(
        cls,
        spans: PoolSpans,
        encoder: SpanEncoder,
        folder: Path,
        *,
        label: str,
        progress: Progress = NO_PROGRESS,
        prepared: PreparedEvidence | None = None,
        call: Call = at_once,
    ) -> SpanMemory:
        """What is prepared; else from its file in ``folder``, or read by ``encoder`` now (as long as tagging that many
        sentences takes) and written there. A damaged file is read anew. ``call``: calls the encoder, slice by slice."""
        shared = _file_name(spans, encoder.states_fingerprint)
        if prepared is not None and (memory := cls._prepared(prepared.find(shared), len(spans.labels))) is not None:
            return memory
        memory = cls._read_here(spans, encoder, folder, label, progress, call)
        if prepared is None or not prepared.fill:
            return memory
        content = {**pack(memory.vectors), "centre": memory.centre, "scale": memory.scale}
        packed = cls._prepared(prepared.add(shared, content), len(spans.labels))
        assert packed is not None  # it was made just now
        return packed

    @classmethod
    def _prepared(cls, file: PreparedFile | None, spans: int) -> SpanMemory | None:
        if file is None:
            return None
        try:
            memory = cls(unpack(file.arrays), file.arrays["centre"], file.arrays["scale"], file.digest)
        except (KeyError, ValueError) as error:
            log.warning("prepared vectors are damaged, and the pool is read", extra={"error": str(error)})
            return None
        return memory if memory.vectors.shape[1:2] == (spans,) else None

    @classmethod
    def _read_here(
        cls, spans: PoolSpans, encoder: SpanEncoder, folder: Path, label: str, progress: Progress, call: Call
    ) -> SpanMemory:
        path = folder / _file_name(spans, encoder.fingerprint)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                memory = cls(stored["vectors"].astype(np.float32), stored["centre"], stored["scale"])
            if memory.vectors.ndim == 3 and memory.vectors.shape[1] == len(spans.labels):
                return memory
            log.warning("span memory is incomplete and is made anew", extra={"path": str(path)})
        except FileNotFoundError:
            pass
        except DAMAGED_ARRAYS as error:
            log.warning("span memory is damaged and is made anew", extra={"path": str(path), "error": str(error)})
        memory = cls.of(_read(spans, encoder, label, progress, call))
        # As it will be read from the file, also in the order of its numbers, by which float32 sums differ in their last
        # bit: who reads the pool and who finds it read must come to the same weights.
        rounded = np.ascontiguousarray(memory.vectors.astype(np.float16).astype(np.float32))
        memory = cls(rounded, memory.centre, memory.scale)
        with written_atomically(path) as out:  # unit vectors need no more than half precision
            np.savez(out, vectors=memory.vectors.astype(np.float16), centre=memory.centre, scale=memory.scale)
        return memory


def _file_name(spans: PoolSpans, reader: str) -> str:
    key = hashlib.sha256(f"{_FORMAT} {spans.fingerprint} {reader}".encode()).hexdigest()[:24]
    return f"spans-{key}.npz"


def _read(spans: PoolSpans, encoder: SpanEncoder, label: str, progress: Progress, call: Call) -> States:
    progress.start(label, len(spans.texts))
    sizes = [
        cost(text) + sum(cost(span.text) for span in in_sentence)
        for text, in_sentence in zip(spans.texts, spans.spans, strict=True)
    ]
    read: dict[int, States] = {}
    for batch in slices(spans.texts, sizes):
        states, _ = call(partial(encoder.encode, [spans.texts[i] for i in batch], [spans.spans[i] for i in batch]))
        read.update(zip(batch, states, strict=True))
        progress.advance(len(batch))
    progress.done()
    in_order = [read[i] for i in range(len(spans.texts))]
    return np.concatenate(in_order) if in_order else np.zeros((0, 2, 1), dtype=np.float32)
