"""Writing the outcomes of a partition's documents, and what becomes of one that cannot be written.

A group of outcomes is one transaction. If one of its messages is refused (it is too large, or a broker does not take
it), each part of the group is written in a transaction of its own. The outcome that is refused fails its document, and
a dead letter keeps what it was made of; the other outcomes are written as they are. An outcome that ends worker after
worker is given up (:mod:`workers.stages.crash_journal`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from el4ner.errors import DocumentError
from workers.join import outputs
from workers.join.agent import World
from workers.join.changelog import Remembered, closed_record, drop_record, forget_record, open_record
from workers.join.join_telemetry import JoinTelemetry
from workers.join.owned_partition import OwnedPartition, PendingLetter, TakenMessage
from workers.join.partition_join import Group
from workers.join.rules import LocalAnswer, Outcome, ReceivedAnswer, event_id_of
from workers.kafka.delivery import RefusedError, may_be_of_a_message
from workers.kafka.stage_app import StageApp
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.messages.envelope import REVISION, STATUS, Outgoing, Record, dead_letter
from workers.messages.headers import Trace, next_trace
from workers.roles import AGGREGATE
from workers.stages.crash_journal import CrashJournal
from workers.stages.failure_limit import FailureLimit
from workers.stages.table import STAGE_TABLE
from workers.topics import changelog_name

__all__ = ["OutcomeWriter"]

log = logging.getLogger(__name__)

_GROUP: Final = 250


class OutcomeWriter:
    """Writes for all partitions of a process.

    ``committed`` is told of outcomes when they are; ``finished`` of the messages that a transaction has finished.
    """

    def __init__(
        self,
        app: StageApp,
        world: World,
        recorder: JoinTelemetry,
        journal: CrashJournal,
        *,
        committed: Callable[[Sequence[Outcome]], None] = lambda _: None,
        finished: Callable[[Sequence[TakenMessage]], None] = lambda _: None,
    ) -> None:
        self.app = app
        self._settings = app.settings
        self._journal = journal
        self._committed = committed
        self._finished = finished
        self._world = world
        self._recorder = recorder
        self._changelog = changelog_name(app.settings.kafka)
        worker = app.settings.worker
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)

    async def write_group(self, owned: OwnedPartition) -> None:
        """Write the next group. What cannot be written of it fails its document.

        Raises:
            RefusedError: not even a dead letter is taken.
            TooManyFailuresError: so many outcomes cannot be written that it is not their fault.
            FencedError, KafkaError, DeliveryError: as :meth:`workers.kafka.transactions.TransactionalWriter.write`.
        """
        group = owned.join.take(_GROUP)
        loose, owned.loose = owned.loose, []
        owned.offset_is_due = False
        if self._deaths(owned, group):
            await self._write_apart(owned, group, loose)
        else:
            await self._write(owned, group, loose)

    async def _write_apart(
        self, owned: OwnedPartition, group: Group[TakenMessage], loose: Sequence[TakenMessage]
    ) -> None:
        """Each part in a transaction of its own; a document over which too many workers died is given up."""
        for taken in loose:
            await self._write(owned, Group(), [taken])
        for part in owned.join.split(group):
            deaths = self._deaths(owned, part)
            if deaths < self._settings.worker.max_crashes:
                await self._write(owned, part, [])
                continue
            error = RefusedError(f"{deaths} workers died when they wrote this document alone", code="worker-crash")
            if part.settled:
                await self._write_refused(owned, part, error)
            else:
                self._give_up(owned, part, error)

    async def _write(self, owned: OwnedPartition, group: Group[TakenMessage], loose: Sequence[TakenMessage]) -> None:
        """Write a group in one transaction; where one of its messages is refused, each part in one of its own."""
        try:
            await self._commit(owned, group, loose)
        except RefusedError as error:
            parts = len(loose) + len(group.settled) + len(group.saved) + bool(group.forgets)
            if parts > 1:
                await self._write_apart(owned, group, loose)
            elif _leave_out_published([*group.tickets, *loose]):
                log.warning("a stage's message is not published: %s", error, extra={"stage": self.app.stage})
                await self._write(owned, group, loose)
            elif group.settled:
                await self._write_refused(owned, group, error)
            elif group.saved:
                self._give_up(owned, group, error)
            else:
                raise
        except Exception as error:
            if may_be_of_a_message(error):
                self._journal.blame(self._suspects(owned, group))
            raise
        else:
            self._limit.check([None for _ in group.outcomes])

    def _deaths(self, owned: OwnedPartition, group: Group[TakenMessage]) -> int:
        """How many workers died over the document of the group over which most did."""
        if not self._journal.has_suspects:
            return 0
        return max((self._journal.deaths(record) for record in self._suspects(owned, group)), default=0)

    def _suspects(self, owned: OwnedPartition, group: Group[TakenMessage]) -> list[Record]:
        """The messages by which the crash journal knows the documents of a group, if it is known where they lie."""
        answers = [outcome.answer for outcome in group.outcomes]
        answers += [state.best or state.failed for _, state in group.saves]
        return [self._record_of(owned, answer) for answer in answers if answer is not None and answer.place[0] >= 0]

    def _give_up(self, owned: OwnedPartition, group: Group[TakenMessage], error: RefusedError) -> None:
        """A document that is open cannot be written down: it comes out with what there is, in a group of its own."""
        self._finish(owned, owned.join.give_up(group, error.of_the_document))
        log.warning("a document that is open cannot be written down: %s", error, extra={"stage": self.app.stage})

    async def _write_refused(self, owned: OwnedPartition, group: Group[TakenMessage], error: RefusedError) -> None:
        """An outcome cannot be written: its document has failed, and what it was made of is a dead letter."""
        (settled,) = group.settled
        outcome, given_up = settled.outcome, error.of_the_document
        self._limit.check([given_up.code])
        letters = [] if outcome.answer is None else [self._letter_of(owned, outcome.answer, given_up)]
        for failed in outcome.refused(given_up):
            owned.join.replace(group, failed)
            try:
                await self._commit(owned, group, [], letters)
            except RefusedError as again:
                error = again
            else:
                extra = {"stage": self.app.stage, "document_id": outcome.id, "code": given_up.code}
                log.warning("an outcome cannot be written: %s", given_up, extra=extra)
                return
        raise error

    def _letter_of(self, owned: OwnedPartition, answer: ReceivedAnswer, error: DocumentError) -> PendingLetter:
        record, now = self._record_of(owned, answer), self._world.clock_ms()
        letter = dead_letter(record, stage=AGGREGATE, error=error, document=answer.id, attempts=1, now_ms=now)
        return PendingLetter(letter, AGGREGATE, error.code)

    def _record_of(self, owned: OwnedPartition, answer: ReceivedAnswer) -> Record:
        """The message that an answer came in. An open document keeps no headers: here are those that the join needs."""
        if answer.record is not None:
            return answer.record
        if isinstance(answer.value, LocalAnswer):
            return answer.value.record
        topic, key = STAGE_TABLE[answer.stage].output, answer.id.encode()
        status = b"failed" if answer.failed else b"ok"
        subject = (("ce_subject", key), (REVISION, str(answer.revision).encode()), (STATUS, status))
        headers = subject + answer.origin.headers
        return Record(topic, self.app.names[topic], owned.partition, *answer.place, key, answer.value, headers)

    async def _commit(
        self,
        owned: OwnedPartition,
        group: Group[TakenMessage],
        loose: Sequence[TakenMessage],
        more_letters: Sequence[PendingLetter] = (),
    ) -> None:
        began = self._world.clock_ms()
        random = self._world.random
        traced = [(outcome, next_trace(outputs.parent(outcome.trace), random)) for outcome in group.outcomes]
        # An answer may have several parts, and one message leads to all of them.
        taken = list(dict.fromkeys([*group.tickets, *loose]))
        letters = [*more_letters, *(letter for each in taken for letter in each.letters)]
        messages = [letter.message for letter in letters]
        messages += [message for each in taken for message in each.published]
        messages += self._messages_of(owned, group, traced)
        consumed = None if owned.consumed is None else owned.consumed.offset([each.ticket for each in taken])
        if messages or consumed is not None:
            await owned.writer.write(messages, consumed)
        if owned.consumed is not None and consumed is not None:
            owned.consumed.committed(consumed)
        finished = [*owned.join.committed(group, now=self._world.monotonic_ms()), *loose]
        for letter in letters:
            self._recorder.letter_of(letter.stage, letter.code)
        self._finish(owned, finished, written=taken)
        self._recorder.settled(traced, partition=owned.partition, began_ms=began)
        self._committed(group.outcomes)
        if self._journal.has_suspects:
            for record in self._suspects(owned, group):
                self._journal.settled(record)
        for outcome, trace in traced if log.isEnabledFor(logging.DEBUG) else ():
            extra = {"stage": self.app.stage, "document_id": outcome.id, "trace_id": trace.trace_id}
            log.debug("document is %s", outcome.closed.status, extra=extra)

    def _finish(
        self, owned: OwnedPartition, messages: Sequence[TakenMessage], written: Sequence[TakenMessage] = ()
    ) -> None:
        """The join needs these messages no more. Some came while the transaction was on its way: what has to be written
        of them is not in it, and still waits to be."""
        in_it, finished = frozenset(written), []
        for each in dict.fromkeys(messages):
            if each.leads_to_more and each not in in_it:
                owned.loose.append(each)
            else:
                self.app.positions.finish(each.ticket)
                finished.append(each)
        self._finished(finished)

    def _messages_of(
        self, owned: OwnedPartition, group: Group[TakenMessage], traced: Sequence[tuple[Outcome, Trace]]
    ) -> Iterator[Outgoing]:
        wall, now, partition = self._world.clock_ms(), self._world.monotonic_ms(), owned.partition
        for outcome, trace in traced:
            if outcome.tagged is None:
                yield outputs.deletion(outcome.id, outcome.origin, partition=partition, trace=trace, now_ms=wall)
                continue
            tagged, event_id, ids = outcome.tagged, event_id_of(outcome.tagged), entity_ids(outcome.tagged)
            yield from outputs.mentions(tagged, ids, event_id, trace=trace, now_ms=wall, random=self._world.random)
            shown = with_entity_ids(tagged, ids) if self._settings.entities.enabled else tagged
            yield outputs.tagged_document(
                shown, event_id, outcome.origin, partition=partition, trace=trace, now_ms=wall
            )
        records = [open_record(document, state, since=wall - (now - state.since)) for document, state in group.saves]
        records += [drop_record(document) for document in group.drops]
        if group.number >= 0:
            # By the wall clock: the monotonic one means nothing to whoever reads this.
            until = wall + owned.join.until(now=now) - now
            documents = tuple((outcome.id, outcome.closed) for outcome in group.outcomes)
            records.append(closed_record(Remembered(group.number, until, documents)))
        records += [forget_record(number) for number in group.forgets]
        for key, value in records:
            yield Outgoing(self._changelog, key, value, (), partition)


def _leave_out_published(taken: Sequence[TakenMessage]) -> bool:
    """Whether there was anything. The outcome, the dead letters and the offset count, and not who looks on."""
    published = [each for each in taken if each.published]
    for each in published:
        each.published = ()
    return bool(published)
