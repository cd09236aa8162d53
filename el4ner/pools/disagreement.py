"""Whether an example says of a name what the pool does, each looked at as if its own sentence were not in the pool."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from el4ner.pools.examples import PoolExample
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.text.mentions import find_mentions, fold
from el4ner.text.white_space import comparable
from el4ner.types import Span

__all__ = ["Disagreement", "disagreements"]

_MOST_KEPT = 16_384
"""More than a pool with ten thousand examples has sentences: with fewer each would be folded anew for each example."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A mention that the pool mostly has otherwise.

    Args:
        span: in the example's clean text.
        says: its type in the example; None: no entity.
        counts: how often the pool's other sentences have the name as what; None: as no entity.
    """

    span: Span
    says: str | None
    counts: Mapping[str | None, int]

    @property
    def message(self) -> str:
        """For the person who teaches."""
        times = [f"{_named(label)} {_times(count)}" for label, count in self.counts.items()]
        own = "" if self.says in self.counts else f", {_named(self.says)} never"
        return f"the pool calls {self.span.text!r} {', '.join(times)}{own}; the example: {_named(self.says)}"


def disagreements(example: PoolExample, pool: Pool) -> list[Disagreement]:
    """Mentions of the example that the pool's other sentences have more often as something else, in the order of the
    text. A name that the pool does not have disagrees with nothing.

    ``pool`` may have the example, or another one of its text: neither counts.
    """
    sentence, names = example.sentence, _names_of(pool)
    labelled = dict(sentence.spans)
    mentions = sorted({*labelled, *_unlabelled(sentence, pool, names)})
    found = []
    for span in mentions:
        says, counts = labelled.get(span), Counter[str | None]()
        for other in names.sentences_with(span.text):
            if other.text != sentence.text:
                counts.update(_labels_in(span.text, other))
        most = max(counts.values(), default=0)
        if most > counts[says]:
            found.append(Disagreement(span, says, {label: count for label, count in counts.most_common() if count}))
    return found


class _PoolNames:
    """What a pool has of names, so that thousands of examples can be compared with it."""

    def __init__(self, sentences: Sequence[PoolSentence]) -> None:
        self._sentences = sentences
        folded = [_folded(sentence.text) for sentence in sentences]
        # In one string, where a search takes no time; no name has the character between them.
        self._text = "\0".join(folded)
        self._begins = list(accumulate((len(text) + 1 for text in folded), initial=0))
        self._labelled: dict[str, set[str]] = {}
        for sentence in sentences:
            for span, _ in sentence.spans:
                texts = self._labelled.setdefault(_form(span.text), set())
                if len(texts) < 2:
                    texts.add(sentence.text)

    def is_labelled_outside(self, surface: str, text: str) -> bool:
        """Whether a sentence with another text has an entity of that name."""
        return not self._labelled.get(_form(surface), set()) <= {text}

    def sentences_with(self, surface: str) -> Iterator[PoolSentence]:
        """Those whose text has the name somewhere, in the pool's order."""
        form = _form(surface)
        place = self._text.find(form) if form else -1
        while place >= 0:
            number = bisect_right(self._begins, place) - 1
            yield self._sentences[number]
            place = self._text.find(form, self._begins[number + 1])


_made: dict[str, _PoolNames] = {}


def _names_of(pool: Pool) -> _PoolNames:
    names = _made.get(pool.fingerprint)
    if names is None:
        names = _PoolNames(pool.sentences)
        for old in list(_made)[: max(0, len(_made) - 3)]:
            _made.pop(old, None)
        _made[pool.fingerprint] = names
    return names


def _unlabelled(sentence: PoolSentence, pool: Pool, names: _PoolNames) -> Iterator[Span]:
    """Names of the pool that the example leaves out, the longest where they are nested."""
    taken = [(span.start, span.end) for span, _ in sentence.spans]
    for span in pool.lexicon.find(sentence.text):
        if names.is_labelled_outside(span.text, sentence.text) and all(
            span.end <= start or span.start >= end for start, end in taken
        ):
            taken.append((span.start, span.end))
            yield span


@lru_cache(maxsize=32_768)
def _labels_in(surface: str, sentence: PoolSentence) -> Sequence[str | None]:
    """What a sentence has each mention of the name as. A mention inside of a longer entity says nothing."""
    return tuple(_read_labels(surface, sentence))


@lru_cache(maxsize=_MOST_KEPT)
def _folded(text: str) -> str:
    return fold(comparable(text).form)


def _read_labels(surface: str, sentence: PoolSentence) -> Iterator[str | None]:
    for mention in find_mentions(surface, sentence.text):
        if _form(mention.text) != _form(surface):
            continue
        label, inside = None, False
        for span, own in sentence.spans:
            if (span.start, span.end) == (mention.start, mention.end):
                label = own
            elif span.start < mention.end and mention.start < span.end:
                inside = True
        if label is not None or not inside:
            yield label


@lru_cache(maxsize=_MOST_KEPT)
def _form(surface: str) -> str:
    return fold(comparable(surface.strip()).form)


def _named(label: str | None) -> str:
    return "no entity" if label is None else label


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
