"""Keeps an index of OpenSearch as ``tagged-documents`` is: ``python -m examples.opensearch.documents_sink``.

The broker is the one that every command of el4ner takes (el4ner.toml, KAFKA_BOOTSTRAP_SERVERS). OPENSEARCH_URL says
where OpenSearch is (https://user:password@host:9200), OPENSEARCH_CA_FILE which authorities its certificate may be of.
It makes the index if there is none, and goes on until SIGTERM or Ctrl-C. Several of them share the partitions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from opensearchpy import OpenSearch, OpenSearchException, TransportError
from opensearchpy.helpers import streaming_bulk

from el4ner.errors import El4nerError, MessageError
from examples.opensearch.indexed_documents import (
    STATE_FIELDS,
    IndexedState,
    TaggedMessage,
    index_id,
    operation,
    read_message,
    settled,
)
from workers.config import StreamSettings, load_stream_settings
from workers.kafka import broker
from workers.kafka.topic_reader import partitions_of
from workers.topics import Topic, topic_name

__all__ = ["GROUP", "INDEX", "DocumentsSink", "SinkError", "client_of", "make_index"]

GROUP: Final = "el4ner-opensearch"
INDEX: Final = "el4ner-documents"
_MAPPING: Final = Path(__file__).parent / "index.json"
_BATCH: Final = 500
_BULK_BYTES: Final = 10_000_000
_REQUEST_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 200.0
"""Below Kafka's max.poll.interval.ms, 300 s, after which others would get the partitions."""
_KAFKA_MS: Final = 5_000
"""Longer is no broker waited for that is away: what is not committed comes again, and changes nothing."""
_LONGEST_PAUSE_SECONDS: Final = 10.0
_CONFLICT: Final = 409
_ABSENT: Final = 404
_TEMPORARY: Final = frozenset({429, 502, 503, 504})

log = logging.getLogger("el4ner.opensearch")


class SinkError(El4nerError):
    """OpenSearch does not answer, or refuses a message. Nothing is lost: offsets are committed after the writing."""

    code = "opensearch-sink"


class DocumentsSink:
    """Writes what a consumer of ``tagged-documents`` reads.

    Args:
        consumer: of kafka-python, ``read_committed``, without commits of its own.
        client: of OpenSearch.
        index: its name, or that of an alias that is written to.
        skipped: messages that are passed over, as (partition, offset).
        patience_seconds: how long OpenSearch may be away.
    """

    def __init__(
        self,
        consumer: Any,
        client: OpenSearch,
        index: str,
        *,
        skipped: Collection[tuple[int, int]] = (),
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._consumer = consumer
        self._client = client
        self._index = index
        self._skipped = frozenset(skipped)
        self._patience_seconds = patience_seconds

    def run(self, stop: threading.Event) -> None:
        """Read, write, commit, until ``stop`` is set. Raises ``SinkError``."""
        while not stop.is_set():
            try:
                polled = self._consumer.poll(timeout_ms=500, max_records=_BATCH)
            except KafkaError as error:
                raise SinkError(f"Kafka cannot be read: {error}") from error
            records = [record for partition in polled.values() for record in partition]
            if not records:
                continue
            self.write(self._read(records), stop)
            if stop.is_set():
                return  # perhaps before all was written; what was comes again, and changes nothing
            try:
                self._consumer.commit(timeout_ms=_KAFKA_MS)
            except KafkaError as error:
                # Whoever has the partitions now reads the batch again, and finds it written.
                log.warning("offsets are not committed: %s", error)

    def write(self, messages: Sequence[TaggedMessage], stop: threading.Event) -> None:
        """Until the index has them. Raises ``SinkError`` if it refuses one, or is away for too long."""
        end, pause = time.monotonic() + self._patience_seconds, 0.1
        while not stop.is_set():
            try:
                reason = self._write_once(messages)
                if reason is None:
                    return
            except OpenSearchException as error:
                status = error.status_code if isinstance(error, TransportError) else None
                if isinstance(status, int) and status not in _TEMPORARY:
                    raise SinkError(f"OpenSearch refuses a request: {error}") from error
                reason = str(error)
            if time.monotonic() > end:
                raise SinkError(f"OpenSearch has not taken a batch for {self._patience_seconds:g} s: {reason}")
            log.warning("OpenSearch: %s; it is asked again", reason)
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _read(self, records: Iterable[Any]) -> list[TaggedMessage]:
        messages = []
        for record in records:
            if (record.partition, record.offset) in self._skipped:
                log.warning("passed over: offset %d of partition %d", record.offset, record.partition)
                continue
            try:
                messages.append(read_message(record))
            except MessageError as error:
                place = _place(record.partition, record.offset)
                skip = _skip(record.partition, record.offset)
                raise SinkError(
                    f"{place} is no tagged document as JSON: {error}\n"
                    f"with kafka.value_format avro or protobuf the sink can read none; of a single message, {skip}"
                ) from error
        return messages

    def _write_once(self, messages: Sequence[TaggedMessage]) -> str | None:
        """None: all are written. Else why some were not taken, which may be the next time."""
        by_document: dict[str, list[TaggedMessage]] = defaultdict(list)
        for message in messages:
            by_document[message.document_id].append(message)
        states = self._states(by_document)
        if isinstance(states, str):
            return states
        operations, last = [], {}
        for name, own in by_document.items():
            state = states.get(index_id(name))
            outcome = settled(own, state)
            if outcome is not state and not isinstance(outcome, IndexedState):
                operations.append(operation(outcome, state, name))
                last[index_id(name)] = own[-1] if outcome is None else outcome
        answers = streaming_bulk(
            self._client, operations, index=self._index, max_chunk_bytes=_BULK_BYTES, raise_on_error=False
        )
        reason = None
        for accepted, answer in answers:
            ((action, item),) = answer.items()
            if accepted or (action == "delete" and item["status"] == _ABSENT):
                continue
            if item["status"] != _CONFLICT and item["status"] not in _TEMPORARY:
                message = last[item["_id"]]
                raise SinkError(
                    f"OpenSearch refuses {_place(message.partition, message.offset)}, document "
                    f"{message.document_id!r}: {_reason(item['error'])}\n"
                    f"mend the index, or {_skip(message.partition, message.offset)}"
                )
            reason = _reason(item["error"])
        return reason

    def _states(self, names: Iterable[str]) -> dict[str, IndexedState] | str:
        """Of the documents that the index has, as they were written last: no refresh is waited for.

        Or why a part of the index does not answer, which may later.
        """
        ids = [index_id(name) for name in names]
        if not ids:
            return {}
        answer = self._client.mget(index=self._index, body={"ids": ids}, _source=list(STATE_FIELDS))
        for item in answer["docs"]:
            if "error" in item:
                if item["error"].get("type") == "index_not_found_exception":
                    raise SinkError(
                        f"the index {self._index} was deleted\n"
                        "start the sink with a --group of a new name: it makes the index, and reads what the topic has"
                    )
                return _reason(item["error"])
        return {item["_id"]: _state(item) for item in answer["docs"] if item["found"]}


def client_of(environ: Mapping[str, str]) -> OpenSearch:
    """As the variables OPENSEARCH_URL and OPENSEARCH_CA_FILE say. Raises ``SinkError`` if they say nonsense."""
    authorities = environ.get("OPENSEARCH_CA_FILE") or None
    try:
        ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise SinkError(f"OPENSEARCH_CA_FILE={authorities} cannot be used: {error}") from error
    try:
        # The sink asks again itself, and looks at its patience in between.
        url = environ.get("OPENSEARCH_URL") or "http://localhost:9200"
        return OpenSearch(url, ca_certs=authorities, timeout=_REQUEST_SECONDS, max_retries=0)
    except (TypeError, ValueError) as error:
        raise SinkError(f"OPENSEARCH_URL is no address such as https://user:password@host:9200: {error}") from error


def make_index(client: OpenSearch, index: str) -> None:
    """With the mapping of ``index.json``, unless there is one of that name. Raises ``SinkError``."""
    try:
        if not client.indices.exists(index=index):
            client.indices.create(index=index, body=json.loads(_MAPPING.read_bytes()))
    except OpenSearchException as error:
        if "resource_already_exists_exception" not in str(error):  # another sink was first
            raise SinkError(f"OpenSearch cannot be asked for the index {index} (OPENSEARCH_URL): {error}") from error


def consumer_of(settings: StreamSettings, group: str) -> Any:
    """Of ``tagged-documents``. Raises ``SinkError`` without a broker or the topic."""
    consumer = broker.connect(
        settings.kafka,
        KafkaConsumer,
        SinkError,
        client_id=group,
        group_id=group,
        auto_offset_reset="earliest",
        # Outcomes are written in transactions: what was never committed is nobody's outcome.
        isolation_level="read_committed",
        # Offsets are committed when the index has the documents, so that a crash loses none.
        enable_auto_commit=False,
        session_timeout_ms=10_000,  # how long the partitions of one that died wait for another
        max_partition_fetch_bytes=2 * settings.kafka.max_message_bytes,
    )
    topic = topic_name(settings.kafka, Topic.TAGGED_DOCUMENTS)
    try:
        partitions_of(consumer, topic, SinkError)
        consumer.subscribe([topic])
    except BaseException:
        consumer.close()
        raise
    return consumer


def main() -> int:
    """1 and a line on standard error where it cannot go on."""
    parser = argparse.ArgumentParser(description="Keep an index of OpenSearch as tagged-documents is.")
    parser.add_argument("--index", default=INDEX, help="its name, or an alias (default: %(default)s)")
    parser.add_argument("--group", default=GROUP, help="the consumer group (default: %(default)s)")
    parser.add_argument(
        "--skip", action="append", default=[], type=_place_named, metavar="PARTITION:OFFSET", help="pass a message over"
    )
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("opensearch").setLevel(logging.ERROR)  # it logs each failure with a traceback; the sink tells it
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        client = client_of(os.environ)
        make_index(client, arguments.index)
        with contextlib.ExitStack() as stack:
            consumer = consumer_of(load_stream_settings(), arguments.group)
            stack.callback(consumer.close, timeout_ms=_KAFKA_MS)
            DocumentsSink(consumer, client, arguments.index, skipped=arguments.skip).run(stop)
    except El4nerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _place_named(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no partition and offset, such as 0:1234")
    return int(partition), int(offset)


def _place(partition: int, offset: int) -> str:
    return f"the message at offset {offset} of partition {partition}"


def _skip(partition: int, offset: int) -> str:
    return f"pass the message over by --skip {partition}:{offset}"


def _state(item: Mapping[str, Any]) -> IndexedState:
    source = item["_source"]
    return IndexedState(
        revision=source["revision"],
        partition=source["kafka_partition"],
        offset=source["kafka_offset"],
        timestamp_ms=source["tagged_at"],
        seq_no=item["_seq_no"],
        primary_term=item["_primary_term"],
    )


def _reason(error: Any) -> str:
    """OpenSearch's own words, with what caused it."""
    if not isinstance(error, Mapping):
        return str(error)
    caused = error.get("caused_by")
    return f"{error.get('type')}: {error.get('reason')}" + (f" ({_reason(caused)})" if caused else "")


if __name__ == "__main__":
    sys.exit(main())
