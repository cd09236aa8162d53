"""Teaching a pool from a document: its sentences, what the pool says otherwise, and the example that is taught.

What a person says is compared with the labelled sentences of the pool, those that it was taught included, by surface.
No model is asked: the page has none. Blocking (files, kafka-python).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from el4ner.errors import PoolError
from el4ner.pools import Pool, load_pools
from el4ner.pools.examples import ExampleSource, PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.text.segment import segment
from el4ner.types import NONE_TYPE, Sentence, Span
from workers.config import StreamSettings
from workers.http.problems import ProblemError
from workers.join.outputs import normalise
from workers.messages.pool_examples import ExampleKey
from workers.teaching.topic_examples import send_examples, taught_until_now
from workers.topics import Topic, topic_name
from workers.ui.shown_documents import MOST_CHARS, shown_string
from workers.ui.text_pieces import text_pieces

__all__ = ["Lessons", "disagreements"]

_UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY
_MOST_DISAGREEMENTS: Final = 20

Place = tuple[int, int]
Labelled = Sequence[tuple[Span, str]]


class Lessons:
    """Safe to call from any thread.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, settings: StreamSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._pools: Mapping[str, Pool] | None = None

    def opened(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A document's sentences with their entities, and the types of its pool.

        Raises:
            ProblemError: it cannot be taught from, or its pool is not known here.
            TeachingError: no broker, or no topic.
        """
        pool = self._pool(value)
        return {
            "pool": shown_string(pool.name),
            "types": [{"name": name, "description": shown_string(line)} for name, line in pool.types.items()],
            "sentences": [
                {
                    "start": sentence.start,
                    "pieces": text_pieces(sentence.text, []),
                    "spans": [
                        {"start": span.start, "end": span.end, "type": kind}
                        for span, kind in _entities(value, sentence)
                    ],
                }
                for sentence in self._sentences(value, pool)
            ],
        }

    def teach(self, value: Mapping[str, Any], place: Place, body: Mapping[str, Any], teacher: str) -> dict[str, Any]:
        """Teach the pool a sentence of the document, as the body has it; not where the pool disagrees, unless the body
        says that it is sure.

        Raises:
            ProblemError: 422: it is no example; names what is wrong.
            TeachingError: the broker did not take it.
        """
        pool = self._pool(value)
        sentence = next((each for each in self._sentences(value, pool) if each.start == body.get("start")), None)
        if sentence is None:
            raise ProblemError(_UNPROCESSABLE, "example", "start: the document has no sentence that begins there")
        source = ExampleSource(
            str(value["id"]), topic_name(self._settings.kafka, Topic.TAGGED_DOCUMENTS), place[0], place[1]
        )
        try:
            types = {str(name): str(line) for name, line in dict(body.get("types") or {}).items()}
            spans = tuple(_span(sentence.text, item) for item in body.get("spans") or ())
            now_ms = int(self._clock() * 1000)
            example = PoolExample(sentence.text, spans, types, teacher, now_ms, source)
        except (KeyError, TypeError, ValueError, PoolError) as error:
            detail = str(error) if isinstance(error, PoolError) else "spans: a list of start, end and type"
            raise ProblemError(_UNPROCESSABLE, "example", detail) from error
        if left_out := taught_pool(pool, [example]).left_out:
            raise ProblemError(_UNPROCESSABLE, "example", left_out[0].reason)
        said = disagreements(pool, example, before=_entities(value, sentence))
        if said and body.get("sure") is not True:
            return {"taught": False, "disagreements": said}
        send_examples(self._settings.kafka, [(ExampleKey(pool.name, example.digest), example)])
        return {"taught": True, "disagreements": said}

    def _pool(self, value: Mapping[str, Any]) -> Pool:
        """The document's pool, with what it was taught."""
        if value["text"] is None or value["pool"] is None:
            raise ProblemError(_UNPROCESSABLE, "example", "the document has no text, or no pool")
        with self._lock:
            if self._pools is None:
                self._pools = load_pools(self._settings.pools)
            pools = self._pools
        if value["pool"] not in pools:
            detail = f"the page does not know pool {value['pool']!r}: give it the [pools] that the workers have"
            raise ProblemError(_UNPROCESSABLE, "unknown-pool", detail)
        pool = pools[value["pool"]]
        in_force = taught_until_now(self._settings.kafka)
        return taught_pool(pool, [example for key, example in in_force.items() if key.pool == pool.name]).pool

    def _sentences(self, value: Mapping[str, Any], pool: Pool) -> list[Sentence]:
        most = self._settings.method.max_sentence_chars
        sentences = segment(value["text"], pool.text_kind, max_chars=most)
        # As much as the page shows.
        return [sentence for sentence in sentences if sentence.end <= MOST_CHARS]


def disagreements(pool: Pool, example: PoolExample, *, before: Labelled) -> list[str]:
    """What the pool's labelled sentences say otherwise, for people. ``before``: what is marked in the sentence now."""
    calls = _Calls(pool, example)
    said = []
    for span, kind in example.spans:
        known = calls[normalise(span.text)]
        other, count = next(((each, n) for each, n in known.most_common() if each != kind), ("", 0))
        if count > known[kind]:
            what = "leaves it unmarked" if other == NONE_TYPE else f"calls it {shown_string(other)}"
            but = f", and {shown_string(kind)} {_times(known[kind])}" if known[kind] else ""
            said.append(f"“{shown_string(span.text)}”: the pool {what} {_times(count)}{but}.")
    kept = {(span.start, span.end) for span, _ in example.spans}
    for span, _ in before:
        known = calls[normalise(span.text)]
        marked = known.total() - known[NONE_TYPE]
        if (span.start, span.end) not in kept and marked > known[NONE_TYPE]:
            kind = next(each for each, _ in known.most_common() if each != NONE_TYPE)
            said.append(f"“{shown_string(span.text)}”: the pool calls it {shown_string(kind)} {_times(known[kind])}.")
    same = next((each for each in pool.sentences if each.text == example.sentence.text), None)
    if same is not None and same.spans != example.sentence.spans:
        said.append("The pool has this very sentence, labelled otherwise: what you say would stand in its place.")
    return said[:_MOST_DISAGREEMENTS]


class _Calls(dict[str, Counter[str]]):
    """How often other sentences of the pool call each surface what; :data:`NONE_TYPE`: they have it unmarked."""

    def __init__(self, pool: Pool, example: PoolExample) -> None:
        super().__init__()
        self._others = [
            (normalise(each.text), [(normalise(span.text), kind) for span, kind in each.spans])
            for each in pool.sentences
            if each.text != example.sentence.text
        ]

    def __missing__(self, surface: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text, spans in self._others:
            if surface not in text:
                continue
            kinds = [kind for name, kind in spans if name == surface]
            if kinds or not any(surface in name for name, _ in spans):
                counts.update(kinds or [NONE_TYPE])
        self[surface] = counts
        return counts


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _entities(value: Mapping[str, Any], sentence: Sentence) -> list[tuple[Span, str]]:
    """What is marked in a sentence, by its own offsets; of entities inside each other the outer one."""
    spans: list[tuple[Span, str]] = []
    for entity in sorted(value["entities"], key=lambda each: (each["start"], -each["end"])):
        start, end = entity["start"] - sentence.start, entity["end"] - sentence.start
        if 0 <= start < end <= len(sentence.text) and (not spans or start >= spans[-1][0].end):
            spans.append((Span(start, end, sentence.text[start:end]), entity["type"]))
    return spans


def _span(text: str, item: Any) -> tuple[Span, str]:
    start, end = item["start"], item["end"]
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(item["type"], str)):
        raise TypeError
    if not 0 <= start < end <= len(text):
        raise ValueError
    return Span(start, end, text[start:end]), item["type"]
