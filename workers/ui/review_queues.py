"""What people should look at first, by pool: fed by the stream that the page follows anyway, in bounded memory.

    a document → a sample of those that came in half a second → its sentences are valued → the queue of its pool

To value a document costs several times what the rest of the page does for it. So of each half second a random sample
is valued, of bounded number and size. On one event loop; only pools' files are read on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from el4ner.errors import El4nerError, MessageError
from el4ner.pools import Pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.review_queue import QueuedSentence, ReviewQueue
from el4ner.serialize import tagged_from_json
from workers.config import StreamSettings
from workers.teaching.topic_examples import TeachingError
from workers.ui.feed_records import FeedRecord
from workers.ui.shown_documents import MOST_CHARS
from workers.ui.taught_pools import PoolExamples, TaughtPools

__all__ = ["ReviewItem", "ReviewList", "ReviewQueues"]

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 5.0
_SAMPLE: Final = 20
"""Documents that are valued in a tick, at most."""
_SAMPLE_CHARS: Final = 5_000
"""Characters of them: who is over that is the last one of its tick."""
_LEARNT_AT_ONCE: Final = 50
_FEW_PLACES: Final = 1_000
"""So many places of documents that are in no queue any more are no matter."""
_LISTED_SECONDS: Final = 2.0
"""A list is made anew so often, and after what somebody did."""
LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A sentence of a queue. ``place``: of its document's message."""

    place: tuple[int, int]
    timestamp_ms: int
    sentence: QueuedSentence


@dataclass(frozen=True, slots=True)
class ReviewList:
    """The head of a pool's queue. ``waiting``: its sentences in all. ``documents`` of the pool came, and ``valued`` of
    these were looked at."""

    items: Sequence[ReviewItem]
    waiting: int
    documents: int
    valued: int


@dataclass
class _Queue:
    """Of one pool. ``learnt``: the examples that it knows, by their digests; ``version``: of what it last looked at."""

    queue: ReviewQueue
    version: int = -1
    learnt: dict[str, PoolExample] = field(default_factory=dict)
    listed: tuple[float, list[QueuedSentence]] | None = None


class ReviewQueues:
    """
    Args:
        random: draws the samples.
    """

    def __init__(self, settings: StreamSettings, pools: TaughtPools, random: Random) -> None:
        self._settings = settings
        self._pools = pools
        self._random = random
        self._queues: dict[str, _Queue] = {}
        self._sample: list[tuple[str, FeedRecord]] = []
        self._offered = 0
        self._due: deque[tuple[str, FeedRecord]] = deque()
        self._left = 0
        self._places: dict[str, tuple[tuple[int, int], int]] = {}
        self._most_places = _FEW_PLACES
        self.documents: Counter[str] = Counter()
        self.valued: Counter[str] = Counter()
        """Documents of each pool that came, and that were valued."""
        self.problem: str | None = None
        """Why there are no queues; None: there are, or will be in a moment."""

    @property
    def pools(self) -> list[str]:
        """The names of those that have a queue."""
        return list(self._queues)

    # --- what comes ---------------------------------------------------------------------------------------------

    def take(self, record: FeedRecord, value: Mapping[str, Any]) -> None:
        """A document came: a new one, or one that takes the place of a revision before. ``value`` has what the feed
        looks at."""
        name, pool = value.get("id"), value["pool"]
        if not isinstance(name, str):
            return
        self._forget(name)
        if pool not in self._queues or not isinstance(value.get("text"), str):
            return
        self.documents[pool] += 1
        # Each document of a tick has the same chance (Vitter's algorithm R).
        self._offered += 1
        if len(self._sample) < _SAMPLE:
            self._sample.append((name, record))
        elif (at := self._random.randrange(self._offered)) < _SAMPLE:
            self._sample[at] = (name, record)

    def forget(self, key: bytes) -> None:
        """The document with that key was deleted."""
        self._forget(key.decode("utf-8", "replace"))

    def begins_at(self, partition: int) -> None:
        """What came from there before may have been deleted without our knowing."""
        for name, ((own, _), _) in list(self._places.items()):
            if own == partition:
                self._forget(name)
        self._sample = [each for each in self._sample if each[1].partition != partition]
        self._due = deque(each for each in self._due if each[1].partition != partition)

    def forget_place(self, place: tuple[int, int]) -> None:
        """The broker has no document there any more."""
        for name in [name for name, (own, _) in self._places.items() if own == place]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        if self._places.pop(name, None) is not None:
            for each in self._queues.values():
                each.queue.forget(name)
                each.listed = None  # it may have the document, of which one like it took the place in the queue
        if any(name == own for own, _ in self._sample):
            self._sample = [each for each in self._sample if each[0] != name]
        if any(name == own for own, _ in self._due):
            self._due = deque(each for each in self._due if each[0] != name)

    # --- valuing ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make the queues, and value what comes, until cancelled."""
        await self.open()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.follow_teaching()
            for _ in range(self.begin_tick()):
                self.value_next()
                await asyncio.sleep(0)  # a document may take milliseconds

    async def open(self) -> None:
        """Make a queue for each pool; where their files cannot be read, again and again."""
        while True:
            try:
                for name, pool in (await asyncio.to_thread(self._pools.files)).items():
                    self._queues[name] = await asyncio.to_thread(self._made, name, pool)
            except (El4nerError, OSError) as error:
                if str(error) != self.problem:
                    log.warning("there is nothing to review: %s", error)
                self.problem = str(error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.problem = None
                return

    def _made(self, name: str, pool: Pool) -> _Queue:
        method = self._settings.method
        made = _Queue(ReviewQueue(pool, max_chars=method.max_sentence_chars, reach=MOST_CHARS))
        # A broker that is away must not keep the queues from being there.
        with contextlib.suppress(TeachingError):
            _learn(made, self._pools.examples(name))
        return made

    def follow_teaching(self) -> None:
        """Have the queues know what was taught and withdrawn since."""
        for name, each in self._queues.items():
            if each.version != self._pools.version:
                _learn(each, self._pools.known_examples(name), most=_LEARNT_AT_ONCE)

    def begin_tick(self) -> int:
        """What came since the last one is due, in no order; how many documents that is."""
        self._random.shuffle(self._sample)
        self._due, self._sample = deque(self._sample), []
        self._offered, self._left = 0, _SAMPLE_CHARS
        return len(self._due)

    def value_next(self) -> None:
        """Value a document that is due, if there still is one, and this tick's characters are not used up."""
        if not self._due or self._left <= 0:
            return
        name, record = self._due.popleft()
        value = record.decoded()
        if value is None:
            return
        try:
            tagged = tagged_from_json(value)
        except (MessageError, TypeError, ValueError):  # the schema takes 1.0 for a whole number
            return
        each = self._queues[tagged.pool]
        self._left -= min(len(tagged.text), MOST_CHARS)
        each.queue.add(tagged)
        self.valued[tagged.pool] += 1
        if name not in each.queue:
            return
        self._places[name] = ((record.partition, record.offset), record.timestamp_ms)
        if len(self._places) > self._most_places:
            self._places = {own: at for own, at in self._places.items() if self._is_queued(own)}
            for other in self._queues.values():
                other.listed = None  # what it says is of sentences that are gone
            self._most_places = 2 * len(self._places) + _FEW_PLACES

    def _is_queued(self, name: str) -> bool:
        return any(name in each.queue for each in self._queues.values())

    # --- what people do -----------------------------------------------------------------------------------------

    def listed(self, name: str, now: float) -> ReviewList:
        """The head of the queue of a pool, which is one of :attr:`pools`."""
        each = self._queues[name]
        self.follow_teaching()
        if each.listed is None or not 0 <= now - each.listed[0] < _LISTED_SECONDS:
            each.listed = (now, each.queue.first(LISTED))
        items = [ReviewItem(*self._places[sentence.document], sentence) for sentence in each.listed[1]]
        return ReviewList(items, len(each.queue), self.documents[name], self.valued[name])

    def dismiss(self, name: str, document: tuple[int, int], start: int) -> bool:
        """Nobody needs to look at that sentence; False: the queue does not have it."""
        each = self._queues.get(name)
        if each is None:
            return False
        names = [own for own, (place, _) in self._places.items() if place == document]
        each.listed = None
        return any(each.queue.dismiss(own, start) for own in names)


def _learn(each: _Queue, known: PoolExamples | None, *, most: int | None = None) -> None:
    """Bring the queue's examples up to those that are in force; ``most``: so many at once, since each costs. Where none
    are known the queue goes by the files, and by what it knew."""
    if known is None:
        return
    in_force = {example.digest: example for example in known.examples}

    def is_other(digest: str) -> bool:
        before, now = each.learnt.get(digest), in_force.get(digest)
        return before is not now and before != now

    changes = [digest for digest in {**each.learnt, **in_force} if is_other(digest)]
    for digest in changes[:most]:
        if (before := each.learnt.pop(digest, None)) is not None:
            each.queue.unlearn(before.sentence)
        if (example := in_force.get(digest)) is not None:
            each.learnt[digest] = example
            each.queue.learn(example.sentence)
    if most is None or len(changes) <= most:
        each.version = known.version
    each.listed = None
