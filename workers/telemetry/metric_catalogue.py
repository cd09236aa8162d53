"""Every metric that a worker shows, in one place: name, kind, unit, labels, meaning, and what to do when it moves.

:mod:`workers.telemetry.metrics` makes its instruments from it; the table in ``docs/operations.md`` is :func:`as_table`;
the dashboard and the alert rules may name nothing else. Names follow Prometheus' conventions: base units, the unit at
the end, ``_total`` after a counter's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CATALOGUE", "Kind", "MetricSpec", "as_table"]

Kind = Literal["counter", "gauge", "histogram"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""From an engine that answers at once to the join's deadline."""
_DOCUMENTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: as it is exposed; a histogram's without ``_bucket``, ``_sum`` and ``_count``.
        help: what is counted or measured, and from when to when.
        watch: what it means when it moves, for whoever is on call.
        labels: all of them bounded (:class:`workers.telemetry.metrics.Metrics`).
        unit: the base unit that the name ends with; empty for a count of nothing in particular, and for yes or no.
        buckets: a histogram's upper bounds, in its unit.
        observed: read at scrape time from whoever owns the value, and shown only by processes that have it.
    """

    name: str
    kind: Kind
    help: str
    watch: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    observed: bool = False

    @property
    def series(self) -> tuple[str, ...]:
        """The names that can be asked for in PromQL."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))


CATALOGUE: Final = (
    # --- the process -------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_build_info",
        "gauge",
        "1; the labels say which release and which Python run.",
        "Two versions for longer than a rolling upgrade takes: one of its workers did not come up.",
        labels=("version", "python"),
    ),
    # --- stages ------------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_documents_total",
        "counter",
        "Messages that a stage has answered (answers delivered); outcome: ok, failed or deleted.",
        "Flat while there is lag: the stage is stuck. failed rises: see el4ner_dead_letters_total.",
        labels=("stage", "outcome"),
    ),
    MetricSpec(
        "el4ner_stage_ready",
        "gauge",
        "1: the stage has its partitions and its models, and is not stopping.",
        "0 for longer than models take to load: the worker's log says what it waits for.",
        labels=("stage",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_stage_stuck_seconds",
        "gauge",
        "For how long the partition that is stuck longest has had messages and has not got on.",
        "Above worker.stall_seconds /livez answers 503 and the platform restarts the worker.",
        labels=("stage",),
        unit="seconds",
        observed=True,
    ),
    MetricSpec(
        "el4ner_messages_in_flight",
        "gauge",
        "Messages that the stage has taken and not finished.",
        "At its bound while little gets done: the engine or the broker is slow.",
        labels=("stage",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_consumer_lag_messages",
        "gauge",
        "Messages in a partition, up to its last stable offset, that the stage has not finished yet.",
        "Grows: more comes in than the stage can do; start more of it, up to the partitions.",
        labels=("stage", "topic", "partition"),
        unit="messages",
        observed=True,
    ),
    MetricSpec(
        "el4ner_rebalances_total",
        "counter",
        "Times that partitions were assigned to the stage in this process.",
        "More than when workers come and go: sessions time out; look for pauses, and at kafka.session_timeout_seconds.",
        labels=("stage",),
    ),
    # --- latency -----------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_stage_latency_seconds",
        "histogram",
        "From the timestamp of a message to the delivery of the stage's answer to it.",
        "Rises with lag: the stage is the bottleneck. Rises without: batches are slow.",
        labels=("stage",),
        unit="seconds",
        buckets=_SECONDS,
    ),
    MetricSpec(
        "el4ner_end_to_end_seconds",
        "histogram",
        "From the timestamp of a document to the delivery of its outcome.",
        "What your readers wait. el4ner_stage_latency_seconds says which stage it is.",
        unit="seconds",
        buckets=_SECONDS,
    ),
    # --- engines -----------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_batch_documents",
        "histogram",
        "Documents in a batch.",
        "Far below worker.batch_documents while there is lag: worker.batch_seconds is too short for the model.",
        labels=("stage",),
        unit="documents",
        buckets=_DOCUMENTS,
    ),
    MetricSpec(
        "el4ner_batch_seconds",
        "histogram",
        "A batch at the engine, from its start to its results; retries in it count, waiting for the engine does not.",
        "Comes near worker.batch_deadline_seconds: smaller batches, or a faster device.",
        labels=("stage",),
        unit="seconds",
        buckets=_SECONDS,
    ),
    MetricSpec(
        "el4ner_batch_age_seconds",
        "gauge",
        "Age of the batch that is at the engine now; 0: none is.",
        "Past worker.batch_deadline_seconds the engine hangs and its worker ends.",
        labels=("stage",),
        unit="seconds",
        observed=True,
    ),
    MetricSpec(
        "el4ner_engine_busy_seconds_total",
        "counter",
        "Time that the process's engines were at work; its rate is their utilisation, 0 to 1.",
        "Near 1 with lag: more workers or devices. Low with lag: what is slow is not the engine.",
        unit="seconds",
    ),
    MetricSpec(
        "el4ner_engine_waiting_calls",
        "gauge",
        "Batches that wait for the engine.",
        "Always at its bound: the engine is the bottleneck, as it should be; with several stages, give them processes.",
        unit="calls",
        observed=True,
    ),
    MetricSpec(
        "el4ner_prompt_tokens_total",
        "counter",
        "Tokens of prompts, those from the key-value cache among them.",
        "Per document it is what a document costs; it jumps with longer texts or another prompt version.",
        labels=("stage",),
        unit="tokens",
    ),
    MetricSpec(
        "el4ner_cached_prompt_tokens_total",
        "counter",
        "Tokens of prompts that were found in the key-value cache and not read again.",
        "Its share of the prompt tokens falls: prompts no longer share their beginning.",
        labels=("stage",),
        unit="tokens",
    ),
    MetricSpec(
        "el4ner_generated_tokens_total",
        "counter",
        "Tokens that engines generated.",
        "Jumps in scored mode, which generates next to nothing: some stage runs in paper mode.",
        labels=("stage",),
        unit="tokens",
    ),
    # --- failures ----------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_retries_total",
        "counter",
        "Attempts that were repeated, by the code of the error before.",
        "engine-out-of-memory: smaller batches. Anything else that lasts: that dependency is ill.",
        labels=("stage", "code"),
    ),
    MetricSpec(
        "el4ner_dead_letters_total",
        "counter",
        "Messages that the stage gave up on and sent to dead-letters (delivered), by error code.",
        "message codes (json, schema, encoding): a producer is broken. engine: a document that kills the model.",
        labels=("stage", "code"),
    ),
    # --- outcomes ----------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_tagged_documents_total",
        "counter",
        "Outcomes in tagged-documents (committed); status: complete, partial, failed or deleted.",
        "partial rises: stages miss worker.deadline_seconds. failed rises: see el4ner_dead_letters_total.",
        labels=("status",),
    ),
    MetricSpec(
        "el4ner_entities_total",
        "counter",
        "Entities in those outcomes, by type.",
        "A type vanishes or explodes: the text, the pool or the model has changed.",
        labels=("type",),
        unit="entities",
    ),
    MetricSpec(
        "el4ner_redaction_withheld_total",
        "counter",
        "Documents that are not published redacted; reason: partial or failed (their tagging; partial also where a "
        "member of the ensemble did not answer), or error (redaction).",
        "Rises: names that might be missed are not published; a stage fails, or see el4ner_dead_letters_total.",
        labels=("reason",),
    ),
    MetricSpec(
        "el4ner_transactions_total",
        "counter",
        "Kafka transactions of the join, of redaction or of entities; outcome: committed, aborted or fenced.",
        "fenced, once: another worker took the partition over, as it should. aborted, repeatedly: the brokers are ill.",
        labels=("outcome",),
    ),
    MetricSpec(
        "el4ner_transaction_seconds",
        "histogram",
        "A transaction of the join, of redaction or of entities, from its start to its end.",
        "Rises: brokers are slow, or too few replicas are in sync.",
        unit="seconds",
        buckets=_SECONDS,
    ),
    MetricSpec(
        "el4ner_known_names",
        "gauge",
        "Names that the entities worker knows now, in the kept windows.",
        "Near entities.max_entities: those seen least recently are forgotten.",
        observed=True,
    ),
    MetricSpec(
        "el4ner_known_documents",
        "gauge",
        "Documents whose revisions and deletions still take back what they counted for entities.",
        "At entities.max_documents: older ones go on to count as they are.",
        observed=True,
    ),
    MetricSpec(
        "el4ner_forgotten_names_total",
        "counter",
        "Names that were forgotten because there were more than entities.max_entities.",
        "Rises: entities lose counts. Raise the limit, or keep fewer windows.",
        observed=True,
    ),
    MetricSpec(
        "el4ner_uncounted_documents_total",
        "counter",
        "Documents that entities do not count, since they are older than the kept windows.",
        "Rises: an old topic is read, or entities.windows are too few.",
    ),
    MetricSpec(
        "el4ner_pool_ready",
        "gauge",
        "1: the pool is read; 0: it is not yet.",
        "0 while the pool has documents: they wait, el4ner_pool_read_ratio says how long. See Pools that have yet to "
        "be read.",
        labels=("pool",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_pool_read_ratio",
        "gauge",
        "How much of the pool that is being read has been read, 0 to 1; no other pool is shown.",
        "Stands still: the models are busy with documents, or another process reads the pool; the log says which.",
        labels=("pool",),
        unit="ratio",
        observed=True,
    ),
    MetricSpec(
        "el4ner_held_messages",
        "gauge",
        "Messages that a stage holds in memory until their pool is read, and those that may not overtake them.",
        "At worker.max_held_documents or max_held_mb the other pools' documents wait too.",
        labels=("stage",),
        unit="messages",
        observed=True,
    ),
    MetricSpec(
        "el4ner_pool_examples",
        "gauge",
        "Examples that a pool is taught: used; or left_out, since a type of theirs is declared nowhere.",
        "Not the same in all workers for longer than seconds: one does not follow the topic, its log says why. "
        "left_out: the log names the type; teach it with its description. See teaching.md.",
        labels=("pool", "state"),
        observed=True,
    ),
    MetricSpec(
        "el4ner_pool_examples_refused",
        "gauge",
        "Messages in pool-examples that are no examples, and are passed over.",
        "Somebody else writes to the topic: the log has the offset and what is wrong.",
        labels=("code",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_mix_divergence_bits",
        "gauge",
        "How far the stream's mix of types is from the pool's, over the latest candidates: Jensen-Shannon, 0 to 1.",
        "Above method.drift_threshold: confidence is off, and rare types of the pool are missed. See Drift.",
        labels=("pool",),
        unit="bits",
        observed=True,
    ),
    MetricSpec(
        "el4ner_mix_ratio",
        "gauge",
        "The share of a type among the stream's entities, as estimated from the latest candidates.",
        "Beside el4ner_mix_pool_ratio it says which types make the divergence.",
        labels=("pool", "type"),
        unit="ratio",
        observed=True,
    ),
    MetricSpec(
        "el4ner_mix_pool_ratio",
        "gauge",
        "The share of a type among the pool's labelled entities, with which the stream's is compared.",
        "Only when the pool changes.",
        labels=("pool", "type"),
        unit="ratio",
        observed=True,
    ),
    # --- the HTTP service --------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_http_requests_total",
        "counter",
        "Requests that el4ner serve has answered, by path and status; 499: the client had gone.",
        "429 rises: more comes in than the engine can do; start more processes. 5xx: the log has the code.",
        labels=("path", "status"),
    ),
    MetricSpec(
        "el4ner_http_request_seconds",
        "histogram",
        "From the head of a request to its answer.",
        "Near serve.request_seconds clients get 504: fewer texts a request, or more processes.",
        labels=("path",),
        unit="seconds",
        buckets=_SECONDS,
    ),
    # --- the join ----------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_join_open_documents",
        "gauge",
        "Documents that wait for answers.",
        "Grows to worker.max_open_documents: one stage is behind the others; the lag says which.",
        unit="documents",
        observed=True,
    ),
    MetricSpec(
        "el4ner_join_open_bytes",
        "gauge",
        "Memory that the answers of those documents take.",
        "At worker.max_open_mb the join takes no new documents (el4ner_join_paused).",
        unit="bytes",
        observed=True,
    ),
    MetricSpec(
        "el4ner_join_oldest_open_seconds",
        "gauge",
        "Age of the document that has waited longest; 0: none waits.",
        "At worker.deadline_seconds it goes out as partial or failed.",
        unit="seconds",
        observed=True,
    ),
    MetricSpec(
        "el4ner_join_remembered_documents",
        "gauge",
        "Finished documents that are remembered, so that what comes twice goes out once.",
        "Memory: fewer with a smaller worker.remember_seconds.",
        unit="documents",
        observed=True,
    ),
    MetricSpec(
        "el4ner_join_paused",
        "gauge",
        "1: the join is full and takes no new documents until one is finished.",
        "Backpressure at work. For long: a stage is stuck while the others go on.",
        observed=True,
    ),
    MetricSpec(
        "el4ner_partial_answers",
        "gauge",
        "Documents of which only some of the ensemble's members have answered, where members run apart.",
        "Grows: a member's process is slow or gone; after worker.members_deadline_seconds they go on without it.",
        labels=("stage",),
        observed=True,
    ),
    # --- the cache ---------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_repeats_total",
        "counter",
        "Sentences that a stage was given; outcome: hit (it, or a worker that shares its answers, was asked about the "
        "like before: no model is asked) or miss. Nothing where method.repeats is off.",
        "Hits fall: the stream repeats itself less, or a pool was just taught, whose repeats are forgotten.",
        labels=("stage", "outcome"),
        observed=True,
    ),
    MetricSpec(
        "el4ner_shared_answers_total",
        "counter",
        "Sentences and line templates that were new to a worker and looked up among what all were asked; outcome: hit "
        "or miss (also when Redis is away).",
        "Hits fall: new text, another pool, model or setting; or Redis evicts. Hits after a restart are work saved.",
        labels=("stage", "outcome"),
        observed=True,
    ),
    MetricSpec(
        "el4ner_shared_answers_damaged_total",
        "counter",
        "Values that were found and could not be used; the sentence is asked about instead.",
        "Rises: something else writes under el4ner's keys, or Redis damages what it keeps.",
        labels=("stage",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_cache_lookups_total",
        "counter",
        "Sentences looked up in the retrieval cache; outcome: hit or miss (also when it is away). Only where prompts "
        "show demonstrations.",
        "Hits fall: new text, another pool or other settings; or the cache evicts.",
        labels=("outcome",),
        observed=True,
    ),
    MetricSpec(
        "el4ner_cache_errors_total",
        "counter",
        "Calls to Redis that failed; it is left alone for redis.retry_seconds after each.",
        "Rises: Redis is away. Everything is slower, nothing is different.",
        labels=("stage",),
        observed=True,
    ),
    # --- traces ------------------------------------------------------------------------------------------------------
    MetricSpec(
        "el4ner_spans_total",
        "counter",
        "OpenTelemetry spans; outcome: recorded, exported or dropped (queue full, or the collector away).",
        "dropped rises: the collector is away or too slow. Documents do not wait for it.",
        labels=("outcome",),
        observed=True,
    ),
)


def as_table(catalogue: tuple[MetricSpec, ...] = CATALOGUE) -> str:
    """The catalogue in Markdown, as ``docs/operations.md`` has it."""
    rows = ["| metric | kind | labels | what it is | when it moves |", "|---|---|---|---|---|"]
    for spec in catalogue:
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "–"
        rows.append(f"| `{spec.name}` | {spec.kind} | {labels} | {spec.help} | {spec.watch} |")
    return "\n".join(rows) + "\n"
