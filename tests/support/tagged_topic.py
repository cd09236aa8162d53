"""What writes ``tagged-documents`` as the aggregator does with entities enabled, for tests of who reads that."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from workers.join.outputs import deletion, tagged_document
from workers.join.rules import event_id_of
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.messages.envelope import UNKNOWN, Outgoing
from workers.messages.headers import Trace
from workers.topics import Topic

__all__ = ["PARTITIONS", "TaggedTopic", "tagged"]

PARTITIONS: Final = 2
_TRACE: Final = Trace("0" * 31 + "1", "0" * 15 + "1")


def tagged(name: str, text: str, *entities: tuple[str, str], revision: int = 0, **fields: Any) -> dict[str, Any]:
    """A tagged document in which each (surface, type) stands where the text first has it."""
    return {
        "id": name,
        "revision": revision,
        "text": text,
        "pool": "news",
        "status": "complete",
        "entities": [
            {
                "start": text.index(surface),
                "end": text.index(surface) + len(surface),
                "text": surface,
                "proposed_by": ["chunks"],
                "type": entity_type,
                "confidence": 0.75,
                "votes": {"one": entity_type},
                "verdict": None,
            }
            for surface, entity_type in entities
        ],
        "manifests": {},
        "missing": [],
        "error": None,
        **fields,
    }


@dataclass
class TaggedTopic:
    """The topic behind ``prefix``. ``now_ms``: when its messages are written."""

    bootstrap: str
    prefix: str
    now_ms: int

    @property
    def name(self) -> str:
        return f"{self.prefix}{Topic.TAGGED_DOCUMENTS.value}"

    def create(self) -> None:
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])

    def send(self, *messages: Mapping[str, Any] | str, age_ms: int = 0, commit: bool = True) -> None:
        """Tagged documents, or ids to delete, in one transaction."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=f"{self.prefix}feed")
        with contextlib.closing(producer):
            producer.init_transactions()
            producer.begin_transaction()
            for message in map(self._outgoing, messages):
                producer.send(
                    self.name,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                    partition=message.partition,
                    timestamp_ms=self.now_ms - age_ms,
                )
            producer.flush()
            if commit:
                producer.commit_transaction()
            else:
                producer.abort_transaction()

    def _outgoing(self, message: Mapping[str, Any] | str) -> Outgoing:
        """Also the partition is the id's: its last character's, where that is a digit."""
        name = message if isinstance(message, str) else message["id"]
        partition = int(name[-1]) % PARTITIONS if name[-1].isdigit() else 0
        common: Any = {"partition": partition, "trace": _TRACE, "now_ms": self.now_ms}
        if isinstance(message, str):
            return deletion(name, UNKNOWN, **common)
        with_ids = with_entity_ids(message, entity_ids(message))
        return tagged_document(with_ids, event_id_of(message), UNKNOWN, **common)
