"""What a worker counts and measures, for Prometheus, made from :mod:`workers.telemetry.metric_catalogue`. No Kafka in
here.

There are two kinds. Events are *recorded* when they happen, by a method for each. Values that another object keeps
(lag, the join's size, the cache's counters) are *observed*: a callback reads them at scrape time. Nothing is global:
every :class:`Metrics` has a registry of its own.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from typing_extensions import override

from el4ner.participation import STAGES
from workers.roles import AGGREGATE, ENTITIES, PIPELINE, REDACT, stages_of
from workers.telemetry.metric_catalogue import CATALOGUE, MetricSpec

__all__ = ["MAX_LABEL_CHARS", "OTHER", "Metrics", "Observed", "Outcome", "Status", "TransactionOutcome", "Withheld"]

log = logging.getLogger(__name__)

Outcome = Literal["ok", "failed", "deleted"]
Status = Literal["complete", "partial", "failed", "deleted"]
TransactionOutcome = Literal["committed", "aborted", "fenced"]
Withheld = Literal["partial", "failed", "error"]

Observed = float | Mapping[tuple[str, ...], float]
"""A value, or values by the values of the labels, in the catalogue's order."""

OTHER: Final = "other"
"""The label value that stands for all those that there is no room for."""

MAX_LABEL_CHARS: Final = 64
_PLAIN_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = re.compile(r"\s*application/openmetrics-text\s*(;|$)")


class _Bounded:
    """Label values that come with the data: the known values, or the first ``limit`` that come. The rest are OTHER."""

    def __init__(self, limit: int, known: Collection[str] | None = None) -> None:
        self._limit = limit if known is None else 0
        self._known = set(known or ())

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit or not 0 < len(value) <= MAX_LABEL_CHARS:
            return OTHER
        self._known.add(value)
        return value


class Metrics:
    """The metrics of one process. Recording is thread-safe and costs microseconds.

    Args:
        version: el4ner's.
        stages: those that run in this process. Their counters begin at 0, so that the first failure is a rise.
        entity_types: the label values of ``el4ner_entities_total``; None: the first 100 types that come. Types beyond
            count as ``other``: whatever a message says, the number of series has a bound.
    """

    def __init__(
        self, *, version: str, stages: Sequence[str] = (), entity_types: Collection[str] | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        self._specs = {spec.name: spec for spec in CATALOGUE}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for spec in CATALOGUE:
            if not spec.observed:
                self._add(spec)
        self._observed = _ObservedValues()
        self._registry.register(self._observed)
        # Resident memory, processor time, open files and the start time, read from /proc when asked.
        ProcessCollector(registry=self._registry)
        self._type = _Bounded(100, entity_types)
        self._code = _Bounded(64)
        self._gauges["el4ner_build_info"].labels(version, platform.python_version()).set(1)
        self._begin_at_zero(stages)

    # --- stages -------------------------------------------------------------------------------------------------------

    def stage_batch(self, stage: str, documents: int, seconds: float) -> None:
        """An engine is through with a batch, after ``seconds``."""
        self._observe("el4ner_batch_documents", documents, (stage,))
        self._observe("el4ner_batch_seconds", seconds, (stage,))

    def engine_busy(self, seconds: float) -> None:
        """An engine was at work for that long. Once for every call, also one that failed."""
        self._count("el4ner_engine_busy_seconds_total", seconds)

    def tokens(self, stage: str, *, prompt: int, cached: int, new: int) -> None:
        """What an engine read (``cached`` of it from its key-value cache) and generated."""
        self._count("el4ner_prompt_tokens_total", prompt, (stage,))
        self._count("el4ner_cached_prompt_tokens_total", cached, (stage,))
        self._count("el4ner_generated_tokens_total", new, (stage,))

    def answered(self, stage: str, outcome: Outcome, count: int = 1) -> None:
        """Answers to ``count`` messages are delivered."""
        self._count("el4ner_documents_total", count, (stage, outcome))

    def stage_latency(self, stage: str, seconds: float, *, trace_id: str | None = None) -> None:
        """An answer is delivered, ``seconds`` after the timestamp of what it answers.

        ``trace_id`` (of a trace that is exported) becomes the bucket's exemplar: from the graph to the trace.
        """
        self._observe("el4ner_stage_latency_seconds", seconds, (stage,), trace_id)

    def dead_letter(self, stage: str, code: str) -> None:
        """A dead letter is delivered."""
        self._count("el4ner_dead_letters_total", 1, (stage, self._code(code)))

    def retried(self, stage: str, code: str) -> None:
        """Something is tried again, after an error with that code."""
        self._count("el4ner_retries_total", 1, (stage, self._code(code)))

    def rebalanced(self, stage: str) -> None:
        """The stage has been assigned partitions."""
        self._count("el4ner_rebalances_total", 1, (stage,))

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def tagged(self, status: Status, entities: Mapping[str, int], documents: int = 1) -> None:
        """Outcomes of ``documents`` are committed; ``entities``: how many of each type they have."""
        self._count("el4ner_tagged_documents_total", documents, (status,))
        for kind, count in entities.items():
            self._count("el4ner_entities_total", count, (self._type(kind),))

    def end_to_end(self, seconds: float, *, trace_id: str | None = None) -> None:
        """An outcome is committed, ``seconds`` after the timestamp of the document as it came in."""
        self._observe("el4ner_end_to_end_seconds", seconds, (), trace_id)

    def withheld(self, reason: Withheld) -> None:
        """A document is not published without its names, since it is not certain that they would all be gone."""
        self._count("el4ner_redaction_withheld_total", 1, (reason,))

    def uncounted(self) -> None:
        """A document is too old to count for entities."""
        self._count("el4ner_uncounted_documents_total", 1)

    def transaction(self, outcome: TransactionOutcome, seconds: float) -> None:
        """A transaction has ended, after ``seconds``."""
        self._count("el4ner_transactions_total", 1, (outcome,))
        self._observe("el4ner_transaction_seconds", seconds)

    # --- the HTTP service -----------------------------------------------------------------------------------------

    def http_request(self, path: str, status: int, seconds: float) -> None:
        """A request is answered. ``path``: of the service's own, or :data:`OTHER`."""
        self._count("el4ner_http_requests_total", 1, (path, str(status)))
        self._observe("el4ner_http_request_seconds", seconds, (path,))

    # --- values of others ---------------------------------------------------------------------------------------------

    def observe(self, name: str, read: Callable[[], Observed]) -> None:
        """Ask ``read`` for the value at every scrape.

        It is called on the thread of :meth:`exposition`, and should take microseconds. Several may be given for one
        name, as by the stages of one process; where two have the same labels, the later one's value counts. What it
        raises costs that metric alone, and is logged once.

        Raises:
            ValueError: the catalogue has no such metric, or it is recorded.
        """
        spec = self._specs.get(name)
        if spec is None or not spec.observed:
            raise ValueError(f"{name} is no metric that the catalogue has as observed")
        self._observed.add(spec, read)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Everything as text, and its content type: OpenMetrics if the ``Accept`` header asks for it."""
        collected = _WithoutCreated(self._registry)
        if any(_OPENMETRICS.match(part) for part in accept.lower().split(",")):
            return generate_openmetrics(collected), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
        return generate_latest(collected), _PLAIN_TYPE

    # ------------------------------------------------------------------------------------------------------------------

    def _add(self, spec: MetricSpec) -> None:
        if spec.kind == "histogram":
            self._histograms[spec.name] = Histogram(
                spec.name, spec.help, spec.labels, unit=spec.unit, buckets=spec.buckets, registry=self._registry
            )
        elif spec.kind == "counter":
            self._counters[spec.name] = Counter(
                spec.name, spec.help, spec.labels, unit=spec.unit, registry=self._registry
            )
        else:
            self._gauges[spec.name] = Gauge(spec.name, spec.help, spec.labels, unit=spec.unit, registry=self._registry)

    def _begin_at_zero(self, stages: Sequence[str]) -> None:
        for stage in stages:
            self._count("el4ner_rebalances_total", 0, (stage,))
            if stage in STAGES or stage in (PIPELINE, REDACT, ENTITIES):
                for outcome in ("ok", "failed", "deleted"):
                    self._count("el4ner_documents_total", 0, (stage, outcome))
        for stage in stages_of(stages):
            self.tokens(stage, prompt=0, cached=0, new=0)
        if AGGREGATE in stages or PIPELINE in stages:
            for status in ("complete", "partial", "failed", "deleted"):
                self._count("el4ner_tagged_documents_total", 0, (status,))
        if REDACT in stages:
            for reason in ("partial", "failed", "error"):
                self._count("el4ner_redaction_withheld_total", 0, (reason,))
        if any(stage in stages for stage in (AGGREGATE, PIPELINE, REDACT, ENTITIES)):
            for ended in ("committed", "aborted", "fenced"):
                self._count("el4ner_transactions_total", 0, (ended,))

    def _count(self, name: str, amount: float, labels: tuple[str, ...] = ()) -> None:
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(amount)

    def _observe(self, name: str, value: float, labels: tuple[str, ...] = (), trace_id: str | None = None) -> None:
        histogram = self._histograms[name]
        # Clocks of several machines: what was answered before it was asked took no time.
        (histogram.labels(*labels) if labels else histogram).observe(
            max(0.0, value), None if trace_id is None else {"trace_id": trace_id}
        )


class _ObservedValues(Collector):
    """Reads the callbacks when it is collected."""

    def __init__(self) -> None:
        self._reads: dict[str, tuple[MetricSpec, list[Callable[[], Observed]]]] = {}
        self._failing: set[str] = set()

    def add(self, spec: MetricSpec, read: Callable[[], Observed]) -> None:
        self._reads.setdefault(spec.name, (spec, []))[1].append(read)

    @override
    def collect(self) -> Iterator[Family]:
        for spec, reads in list(self._reads.values()):
            family: CounterMetricFamily | GaugeMetricFamily = (
                CounterMetricFamily(spec.name, spec.help, labels=spec.labels, unit=spec.unit)
                if spec.kind == "counter"
                else GaugeMetricFamily(spec.name, spec.help, labels=spec.labels, unit=spec.unit)
            )
            for labels, value in self._values(spec, reads).items():
                family.add_metric(labels, value)
            yield family

    def _values(self, spec: MetricSpec, reads: Sequence[Callable[[], Observed]]) -> dict[tuple[str, ...], float]:
        values: dict[tuple[str, ...], float] = {}
        for read in reads:
            try:
                values.update(_by_labels(spec, read()))
            except Exception:
                # One value that cannot be read must not hide all the others from whoever has to find out why.
                if spec.name not in self._failing:
                    self._failing.add(spec.name)
                    log.exception("metric %s cannot be read", spec.name, extra={"metric": spec.name})
        return values


def _by_labels(spec: MetricSpec, observed: Observed) -> dict[tuple[str, ...], float]:
    values: dict[tuple[str, ...], float] = {}
    for labels, value in observed.items() if isinstance(observed, Mapping) else [((), observed)]:
        if len(labels) != len(spec.labels):
            raise ValueError(f"{spec.name} has the labels {spec.labels}, but was given the values {labels}")
        values[labels] = float(value)
    return values


class _WithoutCreated(Collector):
    """A registry without the ``_created`` series, which double the counters; the library's switch is global."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @override
    def collect(self) -> Iterable[Family]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
