"""Teaching a pool from a document: its sentences, what the pool says otherwise, and the example that is taught.

Blocking (files, kafka-python), and safe to call from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from el4ner.errors import PoolError
from el4ner.pools import Pool
from el4ner.pools.examples import ExampleSource, PoolExample
from el4ner.pools.taught import TaughtPool
from el4ner.text.segment import segment
from el4ner.types import Sentence, Span
from workers.config import StreamSettings
from workers.http.problems import ProblemError
from workers.teaching.example_check import check_example
from workers.teaching.topic_examples import send_examples
from workers.topics import Topic, topic_name
from workers.ui.shown_documents import MOST_CHARS, shown_string
from workers.ui.taught_pools import TaughtPools
from workers.ui.text_pieces import text_pieces

__all__ = ["Lessons"]

_UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY
_MOST_DISAGREEMENTS: Final = 20

Place = tuple[int, int]


class Lessons:
    """
    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, settings: StreamSettings, pools: TaughtPools, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._pools = pools
        self._clock = clock

    def opened(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A document's sentences with their entities, and the types of its pool.

        Raises:
            ProblemError: it cannot be taught from, or its pool is not known here.
            TeachingError: no broker, or no topic.
        """
        pool = self._taught(value).pool
        return {
            "pool": shown_string(pool.name),
            "types": [{"name": name, "description": shown_string(line)} for name, line in pool.types.items()],
            "sentences": [
                {
                    "start": sentence.start,
                    "pieces": text_pieces(sentence.text, []),
                    "spans": [
                        {"start": span.start, "end": span.end, "type": shown_string(kind)}
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
        taught = self._taught(value)
        sentence = next((each for each in self._sentences(value, taught.base) if each.start == body.get("start")), None)
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
            checked = check_example(taught.base.name, taught, example)
        except (KeyError, TypeError, ValueError, PoolError) as error:
            detail = str(error) if isinstance(error, PoolError) else "spans: a list of start, end and type"
            raise ProblemError(_UNPROCESSABLE, "example", detail) from error
        said = [shown_string(each.message) for each in checked.disagreements[:_MOST_DISAGREEMENTS]]
        if said and body.get("sure") is not True:
            return {"taught": False, "disagreements": said}
        send_examples(self._settings.kafka, [(checked.key, checked.example)])
        # So that whoever opens the next lesson finds it taught, if that takes no longer than usual.
        self._pools.wait_for(checked.key, checked.example)
        return {"taught": True, "disagreements": said}

    def _taught(self, value: Mapping[str, Any]) -> TaughtPool:
        """The document's pool."""
        if value["text"] is None or value["pool"] is None:
            raise ProblemError(_UNPROCESSABLE, "example", "the document has no text, or no pool")
        if value["pool"] not in self._pools.files():
            detail = f"the page does not know pool {value['pool']!r}: give it the [pools] that the workers have"
            raise ProblemError(_UNPROCESSABLE, "unknown-pool", detail)
        return self._pools.taught(value["pool"])

    def _sentences(self, value: Mapping[str, Any], pool: Pool) -> list[Sentence]:
        most = self._settings.method.max_sentence_chars
        sentences = segment(value["text"], pool.text_kind, max_chars=most)
        # As much as the page shows.
        return [sentence for sentence in sentences if sentence.end <= MOST_CHARS]


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
