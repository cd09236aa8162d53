"""Which messages may overtake those that wait for a model, and what is known of them. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from el4ner.pipeline import Pipeline
from el4ner.serialize import manifest_to_json
from workers.kafka.offsets import OffsetTracker
from workers.messages.envelope import Record
from workers.one_hop.journeys import TaggedJourney
from workers.stages.stage import Deleted, Failure, Work

__all__ = ["Overtaking", "known_journeys", "whose"]


class Overtaking:
    """The messages that wait, by partition and document.

    A message overtakes none about its own document: revisions, deletions and repeats are told in their order. And it is
    at most ``most`` offsets ahead of the oldest message of its partition that is not finished: so many outcomes have to
    be remembered until that one is, or they would come twice after a crash.
    """

    def __init__(self, positions: OffsetTracker, most: int) -> None:
        self._positions = positions
        self._most = most
        self._waiting: dict[int, dict[str, int]] = {}

    def clear(self) -> None:
        """Partitions were assigned: what waited comes again, here or elsewhere."""
        self._waiting.clear()

    def may_pass(self, record: Record, document: str) -> bool:
        """Whether what is known about the document may be told now."""
        if document in self._waiting.get(record.partition, ()):
            return False
        oldest = self._positions.oldest((record.source, record.partition))
        return oldest is None or record.offset - oldest <= self._most

    def wait(self, record: Record, document: str) -> None:
        """The message waits. Of several about a document the last one counts."""
        self._waiting.setdefault(record.partition, {})[document] = record.offset

    def told(self, record: Record, document: str) -> None:
        """What the message leads to has been told: those behind it are in order now."""
        waiting = self._waiting.get(record.partition)
        if waiting is not None and waiting.get(document) == record.offset:
            del waiting[document]


def known_journeys(pipeline: Pipeline, works: Sequence[Work[Any]]) -> dict[int, TaggedJourney]:
    """Of documents of one partition: those that nobody has to be asked about, by their offset."""
    manifests: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    journeys = {}
    for work, known in zip(works, pipeline.known([work.document for work in works]), strict=True):
        if known is not None:
            pool = known.tagged.pool
            if pool not in manifests:
                manifests[pool] = {stage: manifest_to_json(manifest) for stage, manifest in known.manifests.items()}
            journeys[work.record.offset] = TaggedJourney(work, known.tagged, manifests[pool])
    return journeys


def whose(item: Work[Any] | Failure | Deleted | None) -> str:
    """The id of the document that a message of ``documents`` is about.

    Raises:
        RuntimeError: it is nobody's, which cannot be.
    """
    document = item.document.id if isinstance(item, Work) else None if item is None else item.document
    if document is None:
        raise RuntimeError("a message of documents is nobody's document")
    return document
