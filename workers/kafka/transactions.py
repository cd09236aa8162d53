"""Writing the outcomes of a group of documents in one transaction, as the only writer of their partition.

Where documents are what is consumed (``el4ner worker pipeline``), the offset up to which they are done is committed in
the same transaction.

A partition of the documents topic has one transactional id. The process that takes the partition over starts a producer
under that id. The broker then aborts the transaction that its predecessor has begun, and refuses what the predecessor
still sends: a process that was paused, or cut off from the network, cannot deliver anything late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from el4ner.errors import El4nerError
from workers import security
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.kafka.delivery import (
    MAX_BATCH_BYTES,
    NO_LIMITS,
    DeliveryError,
    RefusedError,
    deliver,
    is_transient,
    send_all,
)
from workers.kafka.size_limits import SizeLimits
from workers.kafka.transport import number_anew_after_refusals, outlast_outages
from workers.kafka.value_frames import NO_FRAMES, ValueFrames
from workers.messages.envelope import Outgoing
from workers.roles import AGGREGATE
from workers.telemetry.metrics import TransactionOutcome
from workers.topics import Topic, transactional_id

__all__ = ["ConsumedOffset", "FencedError", "TransactionalWriter"]

log = logging.getLogger(__name__)

_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ConsumedOffset:
    """How far a consumer group has come in a partition of a topic: ``offset`` is that of the next message."""

    group: str
    topic: str
    partition: int
    offset: int


class FencedError(El4nerError):
    """Another process has taken the partition over: this one may write nothing more for it."""

    code = "fenced"


class TransactionalWriter:
    """The one writer of what ``role`` makes of a partition. ``ended`` is told of transactions, with their seconds."""

    def __init__(
        self,
        settings: KafkaSettings,
        names: Mapping[Topic, str],
        partition: int,
        *,
        role: str = AGGREGATE,
        limits: SizeLimits = NO_LIMITS,
        frames: ValueFrames = NO_FRAMES,
        backoff: Backoff,
        ended: Callable[[TransactionOutcome, float], None],
    ) -> None:
        self.id = transactional_id(settings, partition, role)
        self._ended = ended
        self._names = names
        self._limits = limits
        self._frames = frames
        self._backoff = backoff
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.servers,
            transactional_id=self.id,
            acks="all",
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=4 * settings.max_message_bytes,
            request_timeout_ms=int(settings.request_timeout_seconds * 1000),
            **security.kafka_options(settings),
        )
        self._producer: Any = number_anew_after_refusals(outlast_outages(producer))

    async def start(self) -> None:
        """Fence the former writer off. When this returns, its open transaction is aborted."""
        await self._producer.start()

    async def write(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None = None) -> None:
        """All messages in one transaction, and how far we have come with what they were made of; returns when it is
        committed. Tries again as long as that may pass.

        Raises:
            FencedError: another process writes for this partition now.
            RefusedError: one message can never be written as it is; nothing was written. Others can be.
            KafkaError, DeliveryError: it cannot be written, or it is not known whether it was; the partition has to be
                taken over anew, which settles that.
        """

        def on_retry(error: KafkaError, retry: int) -> None:
            log.warning(
                "a transaction is tried again: %s",
                error,
                extra={"transactional_id": self.id, "retry": retry},
            )

        try:
            await deliver(lambda: self._once(messages, consumed), wait=self._backoff.seconds, on_retry=on_retry)
        except ProducerFenced as error:
            raise FencedError(f"{self.id}: another process writes for this partition now") from error

    async def _once(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None) -> None:
        began = time.monotonic()
        try:
            await self._commit(messages, consumed)
        except ProducerFenced:
            self._ended("fenced", time.monotonic() - began)
            raise
        except (KafkaError, DeliveryError):
            self._ended("aborted", time.monotonic() - began)
            raise
        self._ended("committed", time.monotonic() - began)

    async def _commit(self, messages: Sequence[Outgoing], consumed: ConsumedOffset | None) -> None:
        await self._producer.begin_transaction()
        try:
            await send_all(self._producer, self._names, map(self._frames.framed, messages), self._limits)
            if consumed is not None:
                place = TopicPartition(consumed.topic, consumed.partition)
                await self._producer.send_offsets_to_transaction({place: consumed.offset}, consumed.group)
        except RefusedError:
            await self._producer.abort_transaction()
            raise
        except KafkaError as error:
            if is_transient(error):
                await self._producer.abort_transaction()
            raise
        try:
            await self._producer.commit_transaction()
        except ProducerFenced:
            raise
        except KafkaError as error:
            # It may be committed or not. The next writer of the partition learns it from the broker.
            raise DeliveryError(f"{self.id}: it is not known whether a transaction was committed: {error}") from error

    async def stop(self) -> None:
        """Let go of the connections. An open transaction is aborted by the next writer, or by the broker."""
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._producer.stop()
