"""Retrieval: the similarity of the paper, on vectors that can be checked by hand; and the index on disk."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from el4ner.pools import Pool, PoolSentence
from el4ner.retrieval import PoolIndex, UnshownRetriever, make_retriever
from el4ner.retrieval.embedder import Vectors
from el4ner.types import Span


class LetterEmbedder:
    """A text's vector is its letters' counts, of unit length: texts with the same letters are equal."""

    fingerprint = "letters"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        self.embedded.extend(texts)
        counts = np.zeros((len(texts), 27), dtype=np.float32)
        for row, text in enumerate(texts):
            for letter in text.lower():
                counts[row, ord(letter) - 96 if "a" <= letter <= "z" else 0] += 1
        return counts / np.linalg.norm(counts, axis=1, keepdims=True).clip(1e-9)


def sentence(text: str, *surfaces: str) -> PoolSentence:
    spans = tuple((Span(m.start(), m.end(), s), "thing") for s in surfaces if (m := re.search(re.escape(s), text)))
    return PoolSentence(text, tuple(sorted(spans)))


POOL = Pool(
    "p",
    {"thing": "a thing"},
    (
        sentence("aaa and zzz", "aaa", "zzz"),
        sentence("bbb alone", "bbb"),
        sentence("nothing here"),
        sentence("zzz again", "zzz"),
    ),
)


def retrieve(kind: str, tmp_path: Path, text: str, spans: Sequence[str], *, k: int = 2) -> tuple[int, ...]:
    retriever = make_retriever(kind, POOL, k=k, embedder=LetterEmbedder(), index_dir=tmp_path)  # type: ignore[arg-type]
    (found,) = retriever.retrieve([text], [spans])
    return found


def test_span_similarity_is_the_weighted_mean_of_the_best_cosines() -> None:
    embedder = LetterEmbedder()
    index = PoolIndex.build(POOL, embedder)
    queries = embedder.embed(["zzz", "bbb"])
    similarity = index.span_similarity(queries, np.asarray([4.0, 2.0], dtype=np.float32))
    assert similarity == pytest.approx([4 / 6, 2 / 6, -1.0, 4 / 6])


def test_several_inputs_at_once_get_what_each_gets_alone() -> None:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), 3)) for _ in range(40)]
    drawn = [list(dict.fromkeys(random.choice(words, count))) for count in random.integers(0, 6, 30)]
    pool = Pool("p", {"thing": "a thing"}, tuple(sentence(f"so {' '.join(own)}", *own) for own in drawn))
    embedder = LetterEmbedder()
    index = PoolIndex.build(pool, embedder)
    counts = [3, 0, 1, 63, 5, 2, 70, 4]
    inputs = [
        (embedder.embed(list(random.choice(words, count))), random.integers(1, 5, count).astype(np.float32))
        for count in counts
    ]
    together = index.span_similarities(inputs)
    for (queries, weights), found in zip(inputs, together, strict=True):
        right = [
            np.average((queries @ embedder.embed([span.text for span, _ in own.spans]).T).max(axis=1), weights=weights)
            if own.spans and len(weights)
            else -1.0
            for own in pool.sentences
        ]
        assert found == pytest.approx(right, abs=1e-6)


def test_an_index_that_is_made_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[int | str] = []

    class Told:
        def start(self, label: str, total: int) -> None:
            told.extend([label, total])

        def advance(self, steps: int) -> None:
            told.append(steps)

        def done(self) -> None:
            told.append("done")

    class Slow(LetterEmbedder):
        def embed(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
            if progress is not None:
                progress(len(texts))
            return super().embed(texts)

    make_retriever("span", POOL, k=2, embedder=Slow(), index_dir=tmp_path, progress=Told())
    assert told == ["embedding pool p", 7, 3, 4, "done"]


def test_the_most_similar_come_first_and_ties_in_the_pools_order(tmp_path: Path) -> None:
    assert retrieve("span", tmp_path, "Zzz or bbb", ["Zzz", "bbb"], k=3) == (0, 3, 1)


def test_the_sentence_itself_is_never_its_own_example(tmp_path: Path) -> None:
    assert 1 not in retrieve("span", tmp_path, "bbb alone", ["bbb"], k=4)
    assert 1 not in retrieve("sentence", tmp_path, "bbb alone", [], k=4)
    assert 1 not in retrieve("random", tmp_path, "bbb alone", [], k=4)


def test_without_spans_the_whole_sentence_decides(tmp_path: Path) -> None:
    assert retrieve("span", tmp_path, "nothing there", [], k=1) == (2,)


def test_random_retrieval_is_the_same_for_the_same_sentence(tmp_path: Path) -> None:
    assert retrieve("random", tmp_path, "x", []) == retrieve("random", tmp_path, "x", [])
    assert retrieve("none", tmp_path, "x", []) == ()


def test_a_pool_is_embedded_once_and_then_read_from_its_file(tmp_path: Path) -> None:
    first, second = LetterEmbedder(), LetterEmbedder()
    made = PoolIndex.open(POOL, first, tmp_path)
    read = PoolIndex.open(POOL, second, tmp_path)
    assert first.embedded
    assert second.embedded == []
    assert np.array_equal(made.surfaces, read.surfaces)
    assert np.array_equal(made.spans, read.spans)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_index_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    embedder = LetterEmbedder()
    made = PoolIndex.open(POOL, embedder, tmp_path)
    PoolIndex.path(POOL, embedder, tmp_path).write_bytes(damage)
    assert np.array_equal(PoolIndex.open(POOL, embedder, tmp_path).spans, made.spans)


class Cache:
    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.items.get(key) for key in keys]

    def set_many(self, items: Mapping[str, bytes]) -> None:
        self.items.update(items)


def test_what_was_retrieved_once_comes_from_the_cache(tmp_path: Path) -> None:
    cache, embedder = Cache(), LetterEmbedder()
    retriever = make_retriever("span", POOL, k=2, embedder=embedder, index_dir=tmp_path, cache=cache)
    first = retriever.retrieve(["Zzz or bbb", "aaa"], [["Zzz", "bbb"], ["aaa"]])
    count = len(embedder.embedded)
    assert retriever.retrieve(["aaa", "Zzz or bbb"], [["aaa"], ["Zzz", "bbb"]]) == first[::-1]
    assert len(embedder.embedded) == count


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b"[99]", b"[-1]", b'["a"]', b"3", b"[true]", b"[null]", b"[0.0]", b"[0,0]", b"[0,1,2]", b"{}",
        b"[" * 100_000, b"[" + b"0," * 100_000 + b"0]", b"\xff\xfe", pickle.dumps([0]), b"[1e0]", b"[[0]]",
        b"[18446744073709551616]",
    ],
    ids=lambda value: ascii(value[:20]),
)  # fmt: skip
def test_a_cache_that_holds_nonsense_only_misses(tmp_path: Path, value: bytes) -> None:
    cache = Cache()
    retriever = make_retriever("span", POOL, k=2, embedder=LetterEmbedder(), index_dir=tmp_path, cache=cache)
    (right,) = retriever.retrieve(["Zzz"], [["Zzz"]])
    cache.items = dict.fromkeys(cache.items, value)
    assert retriever.retrieve(["Zzz"], [["Zzz"]]) == [right]


def test_what_nobody_is_shown_is_made_when_it_is_tried_out_and_no_sooner(tmp_path: Path) -> None:
    embedder = LetterEmbedder()
    retriever = UnshownRetriever(lambda: make_retriever("span", POOL, k=1, embedder=embedder, index_dir=tmp_path))
    assert retriever.fingerprint == "none"
    assert not list(tmp_path.iterdir())
    plain = make_retriever("span", POOL, k=1, embedder=embedder, index_dir=tmp_path)
    assert retriever.retrieve(["aaa"], [["aaa"]]) == plain.retrieve(["aaa"], [["aaa"]])
