"""Health of the workers, from their ``/metrics``: rates and latencies of the last minute, and their course.

Values of several workers are added up. A counter that goes down is a worker's that was started again. No network in
here but :class:`MetricsReader`; the clock is passed in.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["SCRAPE_SECONDS", "MetricsReader", "Samples", "WorkerMetrics", "parse_samples"]

SCRAPE_SECONDS: Final = 5.0
_COURSE: Final = 180
"""Points of the course that is kept: a quarter of an hour."""
_WINDOW: Final = 12
"""Points that rates and latencies are of: a minute."""
_MOST_DRIFTED: Final = 3
"""Types of a pool that are named: those whose shares differ most."""
_MOST_BYTES: Final = 8 << 20
_MOST_SERIES: Final = 5_000
_TIMEOUT: Final = 3.0
_PREFIX: Final = "el4ner_"

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[tuple[str, Labels], float]
"""Values by name and labels."""


def parse_samples(text: str) -> dict[tuple[str, Labels], float]:
    """What a worker's ``/metrics`` says of el4ner, bounded.

    Raises:
        ValueError: it is not Prometheus' text format.
    """
    samples: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(_PREFIX):
            continue
        for sample in family.samples:
            if not _is_countable(sample.name, sample.labels, sample.value):
                continue
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
            if len(samples) >= _MOST_SERIES:
                return samples
    return samples


def _is_countable(name: str, labels: Mapping[str, str], value: float) -> bool:
    """Whether something can be summed up of it. What answers may be something else than a worker."""
    if name.endswith("_bucket"):
        try:
            float(labels.get("le", ""))
        except ValueError:
            return False
    return math.isfinite(value)


@dataclass
class _Worker:
    url: str
    latest: Samples = field(default_factory=dict)
    error: str | None = "not asked yet"
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Interval:
    """What has risen since the point before, by name and labels, and when."""

    at: float
    seconds: float
    risen: Mapping[tuple[str, Labels], float]


class WorkerMetrics:
    """Takes what each worker says, and sums it up.

    Args:
        now: seconds, by the clock that the other methods are told the time of.
    """

    def __init__(self, urls: Sequence[str], now: float) -> None:
        self._workers = [_Worker(url) for url in urls]
        self._points: deque[_Interval] = deque(maxlen=_COURSE)
        self._last = now

    def take(self, answers: Sequence[Samples | str], now: float) -> None:
        """What the workers have answered, in their order: samples, or why there are none."""
        risen: dict[tuple[str, Labels], float] = {}
        for worker, answer in zip(self._workers, answers, strict=True):
            worker.asked_at = now
            if isinstance(answer, str):
                worker.error = answer
                continue
            # What the first answer has was counted before anybody looked.
            if worker.latest:
                for key, value in answer.items():
                    if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                        before = worker.latest.get(key, 0.0)
                        if change := value - before if value >= before else value:
                            risen[key] = risen.get(key, 0.0) + change
            worker.latest, worker.error = answer, None
        self._points.append(_Interval(now, max(now - self._last, 0.001), risen))
        self._last = now

    def report(self) -> dict[str, Any]:
        """For the page. Rates are a second's, latencies in seconds; None: nothing was measured."""
        window = list(self._points)[-_WINDOW:]
        return {
            "workers": [
                {"url": each.url, "error": each.error, "ready": self._ready(each.latest)} for each in self._workers
            ],
            "stages": self._stages(window),
            "rates": {name: _rate(window, *series) for name, series in _RATES.items()},
            "end_to_end": _latencies(window, "el4ner_end_to_end_seconds", ()),
            "gauges": {name: self._gauge(series) for name, series in _GAUGES.items()},
            "failures": self._failures(),
            "shares": {name: _share(window, *series) for name, series in _SHARES.items()},
            "drift": self._drift(),
            "pools": self._by_label("el4ner_pool_ready", "pool"),
            "course": self._course(),
        }

    def _stages(self, window: Sequence[_Interval]) -> list[dict[str, Any]]:
        names = sorted({dict(labels).get("stage", "") for each in self._workers for _, labels in each.latest} - {""})
        return [
            {
                "stage": name,
                "answered": _rate(window, "el4ner_documents_total", stage=name),
                "latency": _latencies(window, "el4ner_stage_latency_seconds", (("stage", name),)),
                "in_flight": self._gauge("el4ner_messages_in_flight", stage=name),
                "batch": _mean(window, "el4ner_batch_documents", name),
                "stuck": self._largest("el4ner_stage_stuck_seconds", stage=name),
            }
            for name in names
            if self._gauge("el4ner_stage_ready", stage=name) is not None
        ]

    def _course(self) -> dict[str, list[float | None]]:
        course: dict[str, list[float | None]] = {"at": [], "documents": [], "tokens": [], "p50": [], "p95": []}
        for index, point in enumerate(self._points):
            near = list(self._points)[max(0, index - 2) : index + 1]
            latency = _latencies(near, "el4ner_end_to_end_seconds", ())
            course["at"].append(point.at)
            course["documents"].append(_rate([point], *_RATES["documents"]))
            course["tokens"].append(_rate([point], *_RATES["tokens"]))
            course["p50"].append(latency["p50"])
            course["p95"].append(latency["p95"])
        return course

    def _failures(self) -> list[dict[str, Any]]:
        """Of the whole course, by stage and code."""
        counts: dict[tuple[str, str], float] = {}
        for point in self._points:
            for (name, labels), value in point.risen.items():
                if name == "el4ner_dead_letters_total":
                    each = dict(labels)
                    key = (each.get("stage", "?"), each.get("code", "?"))
                    counts[key] = counts.get(key, 0) + value
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [{"stage": stage, "code": code, "count": round(count)} for (stage, code), count in ordered[:50]]

    def _drift(self) -> list[dict[str, Any]]:
        """Of each pool how far the stream's mix of types is from its own, and by which types most; means of workers."""
        stream, pools = (self._means(f"el4ner_mix_{name}", "pool", "type") for name in ("ratio", "pool_ratio"))
        return [
            {
                "pool": pool,
                "bits": bits,
                "types": [
                    {"type": kind, "stream": stream[name, kind], "pool": pools[name, kind]}
                    for name, kind in heapq.nlargest(
                        _MOST_DRIFTED,
                        (key for key in stream if key[0] == pool and key in pools),
                        key=lambda key: abs(stream[key] - pools[key]),
                    )
                ],
            }
            for pool, bits in self._by_label("el4ner_mix_divergence_bits", "pool").items()
        ]

    def _means(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Over the workers, by these labels."""
        found: dict[tuple[str, ...], list[float]] = {}
        for worker in self._workers:
            for (series, has), value in worker.latest.items():
                if series == name and worker.error is None:
                    each = dict(has)
                    found.setdefault(tuple(each.get(label, "?") for label in labels), []).append(value)
        return {key: statistics.fmean(values) for key, values in sorted(found.items())}

    def _gauge(self, name: str, **labels: str) -> float | None:
        values = self._values(name, labels)
        return sum(values) if values else None

    def _largest(self, name: str, **labels: str) -> float | None:
        return max(self._values(name, labels), default=None)

    def _values(self, name: str, labels: Mapping[str, str]) -> list[float]:
        wanted = set(labels.items())
        return [
            value
            for worker in self._workers
            if worker.error is None
            for (series, found), value in worker.latest.items()
            if series == name and wanted <= set(found)
        ]

    def _by_label(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for worker in self._workers:
            for (series, labels), value in worker.latest.items():
                if series == name and worker.error is None:
                    key = dict(labels).get(label, "?")
                    found[key] = max(value, found.get(key, value))
        return dict(sorted(found.items()))

    def _ready(self, samples: Samples) -> bool | None:
        ready = [value for (name, _), value in samples.items() if name == "el4ner_stage_ready"]
        return all(ready) if ready else None


_RATES: Final[Mapping[str, tuple[str, ...]]] = {
    "documents": ("el4ner_tagged_documents_total",),
    "entities": ("el4ner_entities_total",),
    "tokens": ("el4ner_prompt_tokens_total", "el4ner_generated_tokens_total"),
    "engine": ("el4ner_engine_busy_seconds_total",),
    "letters": ("el4ner_dead_letters_total",),
    "retries": ("el4ner_retries_total",),
}
_GAUGES: Final = {
    "open_documents": "el4ner_join_open_documents",
    "open_bytes": "el4ner_join_open_bytes",
    "oldest_open": "el4ner_join_oldest_open_seconds",
    "in_flight": "el4ner_messages_in_flight",
}
_SHARES: Final = {
    "repeats": ("el4ner_repeats_total", ("outcome", "hit"), "el4ner_repeats_total"),
    "shared_answers": ("el4ner_shared_answers_total", ("outcome", "hit"), "el4ner_shared_answers_total"),
    "retrieval_cache": ("el4ner_cache_lookups_total", ("outcome", "hit"), "el4ner_cache_lookups_total"),
    "cached_tokens": ("el4ner_cached_prompt_tokens_total", None, "el4ner_prompt_tokens_total"),
}
"""Part, the label that the part has, and the whole."""


def _rate(window: Sequence[_Interval], *names: str, **labels: str) -> float | None:
    """How much these counters have risen in a second; None: nobody was asked twice yet."""
    seconds = sum(point.seconds for point in window)
    wanted = set(labels.items())
    if not window or seconds <= 0:
        return None
    risen = sum(
        value
        for point in window
        for (name, found), value in point.risen.items()
        if name in names and wanted <= set(found)
    )
    return round(risen / seconds, 3)


def _share(window: Sequence[_Interval], part: str, label: tuple[str, str] | None, whole: str) -> float | None:
    parts = wholes = 0.0
    for point in window:
        for (name, labels), value in point.risen.items():
            if name == part and (label is None or label in labels):
                parts += value
            if name == whole:
                wholes += value
    return round(parts / wholes, 4) if wholes else None


def _mean(window: Sequence[_Interval], name: str, stage: str) -> float | None:
    total, count = (
        sum(
            value
            for point in window
            for (series, labels), value in point.risen.items()
            if series == f"{name}_{part}" and ("stage", stage) in labels
        )
        for part in ("sum", "count")
    )
    return round(total / count, 1) if count else None


def _latencies(window: Sequence[_Interval], name: str, wanted: Labels) -> dict[str, float | None]:
    buckets: dict[float, float] = {}
    for point in window:
        for (series, labels), value in point.risen.items():
            if series == f"{name}_bucket" and set(wanted) <= set(labels):
                bound = float(dict(labels)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
    return {"p50": _quantile(buckets, 0.5), "p95": _quantile(buckets, 0.95)}


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """As Prometheus' ``histogram_quantile``: linear inside a bucket."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = share * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return lower
            inside = buckets[bound] - below
            return round(lower + (bound - lower) * ((rank - below) / inside if inside else 1.0), 4)
        lower, below = bound, buckets[bound]
    return lower


class MetricsReader:
    """Asks all workers at the same time."""

    def __init__(self, urls: Sequence[str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._urls = urls
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, transport=transport)

    async def read(self) -> list[Samples | str]:
        """What each says, in their order; or why it says nothing."""
        return list(await asyncio.gather(*(self._read(url) for url in self._urls)))

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _read(self, url: str) -> Samples | str:
        try:
            async with asyncio.timeout(_TIMEOUT), self._client.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    return f"answers {response.status_code}"
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        return f"answers more than {_MOST_BYTES >> 20} MB"
            return parse_samples(body.decode("utf-8", "replace"))
        except (httpx.HTTPError, TimeoutError) as error:
            return f"does not answer ({type(error).__name__})"
        except ValueError:
            return "answers something else than metrics"
