"""Health from what workers expose. The clock is the tests'."""

from __future__ import annotations

import httpx
import pytest

from workers.telemetry.metrics import Metrics
from workers.ui.worker_metrics import MetricsReader, WorkerMetrics, parse_samples

URL = "http://worker:8080/metrics"


def exposed(metrics: Metrics) -> str:
    return metrics.exposition("")[0].decode()


def worker() -> Metrics:
    return Metrics(version="1", stages=("extract", "aggregate"))


def test_rates_and_latencies_are_of_what_was_counted_meanwhile() -> None:
    metrics, health = worker(), WorkerMetrics([URL], 0)
    metrics.answered("extract", "ok", 1_000)
    health.take([parse_samples(exposed(metrics))], 5)
    assert health.report()["rates"]["tokens"] == 0
    metrics.answered("extract", "ok", 50)
    metrics.tokens("extract", prompt=900, cached=600, new=100)
    for seconds in (0.02, 0.02, 0.02, 4.0):
        metrics.stage_latency("extract", seconds)
    metrics.dead_letter("extract", "json")
    health.take([parse_samples(exposed(metrics))], 10)
    report = health.report()
    assert report["rates"]["tokens"] == 100
    assert report["shares"]["cached_tokens"] == pytest.approx(600 / 900, abs=1e-3)
    assert report["failures"] == [{"stage": "extract", "code": "json", "count": 1}]
    assert report["workers"] == [{"url": URL, "error": None, "ready": None}]
    assert report["course"]["tokens"] == [0, 200]
    assert health._stages(list(health._points)) == []  # no stage has said yet that it is ready


def test_stages_are_those_that_say_that_they_are_there() -> None:
    ready = 'el4ner_stage_ready{stage="extract"} 1\nel4ner_messages_in_flight{stage="extract"} 7\n'
    bucket = 'el4ner_stage_latency_seconds_bucket{stage="extract",le="%s"} %d\n'
    health = WorkerMetrics([URL, URL], 0)
    for at, counts in ((5, (0, 0, 0)), (10, (50, 100, 100))):
        buckets = zip(("0.1", "1.0", "+Inf"), counts, strict=True)
        text = ready + "# TYPE el4ner_stage_latency_seconds histogram\n" + "".join(bucket % each for each in buckets)
        health.take([parse_samples(text), parse_samples(ready)], at)
    (stage,) = health.report()["stages"]
    assert stage["in_flight"] == 14
    assert stage["latency"] == {"p50": 0.1, "p95": pytest.approx(0.91)}
    assert health.report()["workers"][0]["ready"] is True


def test_a_worker_that_was_started_again_counts_from_zero() -> None:
    health = WorkerMetrics([URL], 0)
    for at, value in ((5, 1_000), (10, 1_010), (15, 20)):
        health.take([parse_samples(f"el4ner_tagged_documents_total {value}\n")], at)
    assert health.report()["rates"]["documents"] == 2


def test_workers_that_do_not_answer_are_said_and_do_not_count() -> None:
    health = WorkerMetrics([URL, "http://other/metrics"], 0)
    gauge = parse_samples("el4ner_join_open_documents 3\n")
    health.take([gauge, gauge], 5)
    assert health.report()["gauges"]["open_documents"] == 6
    health.take([gauge, "does not answer (ConnectError)"], 10)
    report = health.report()
    assert report["gauges"]["open_documents"] == 3
    assert report["workers"][1]["error"] == "does not answer (ConnectError)"


def test_what_repeats_and_what_others_or_caches_had_is_told_apart() -> None:
    health = WorkerMetrics([URL], 0)
    lookup = 'el4ner_%s_total{%soutcome="%s"} %d\n'
    for at, factor in ((5, 1), (10, 2)):
        text = "".join(
            lookup % (name, label, outcome, factor * count)
            for name, label, hits, misses in (
                ("repeats", 'stage="extract",', 70, 10),
                ("repeats", 'stage="classify",', 20, 100),
                ("shared_answers", 'stage="extract",', 4, 6),
                ("cache_lookups", "", 1, 3),
            )
            for outcome, count in (("hit", hits), ("miss", misses))
        )
        health.take([parse_samples(text)], at)
    shares = health.report()["shares"]
    assert shares == {"repeats": 0.45, "shared_answers": 0.4, "retrieval_cache": 0.25, "cached_tokens": None}


def test_drift_names_the_types_whose_shares_differ_most() -> None:
    ratio = 'el4ner_mix_%sratio{pool="news",type="%s"} %g\n'
    of_pool = {"person": 0.1, "place": 0.2, "date": 0.3, "event": 0.25, "product": 0.15}
    answers = []
    for shift in (0.1, 0.3):  # the mean of two workers counts
        stream = of_pool | {"person": 0.1 + shift, "place": 0.2 - shift / 2, "date": 0.3 - shift / 4}
        lines = [ratio % ("", kind, share) for kind, share in stream.items()]
        lines += [ratio % ("pool_", kind, share) for kind, share in of_pool.items()]
        divergence = f'el4ner_mix_divergence_bits{{pool="news"}} {shift / 2:g}\n'
        answers.append(parse_samples("".join(lines) + divergence + 'el4ner_pool_ready{pool="logs"} 0\n'))
    health = WorkerMetrics([URL, "http://other/metrics"], 0)
    health.take(answers, 5)
    (drift,) = health.report()["drift"]
    assert (drift["pool"], drift["bits"]) == ("news", 0.15)
    assert [(each["type"], each["pool"]) for each in drift["types"]] == [("person", 0.1), ("place", 0.2), ("date", 0.3)]
    assert [each["stream"] for each in drift["types"]] == pytest.approx([0.3, 0.1, 0.25])
    assert health.report()["pools"] == {"logs": 0}


def test_the_course_is_bounded() -> None:
    health = WorkerMetrics([URL], 0)
    for second in range(1_000):
        health.take([{}], second)
    assert len(health.report()["course"]["at"]) == 180


async def test_whatever_a_worker_answers_is_said() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "away":
            raise httpx.ConnectError("refused")
        if request.url.host == "large":
            return httpx.Response(200, content=b"# " + b"x" * (9 << 20))
        return {
            "good": httpx.Response(200, text="el4ner_x 1\nother_y 2\n"),
            "broken": httpx.Response(200, text="{{{ this is none"),
            "absent": httpx.Response(404),
        }[request.url.host]

    hosts = ("good", "away", "broken", "absent", "large")
    reader = MetricsReader([f"http://{host}/metrics" for host in hosts], httpx.MockTransport(answer))
    good, *others = await reader.read()
    await reader.close()
    assert good == {("el4ner_x", ()): 1}
    assert others == [
        "does not answer (ConnectError)",
        "answers something else than metrics",
        "answers 404",
        "answers more than 8 MB",
    ]


def test_what_no_worker_says_stops_nothing() -> None:
    """Something else may answer at the address: then there is less to see."""
    health = WorkerMetrics([URL], 0)
    for value in ("1", "+Inf", "NaN", "7"):
        odd = f"""el4ner_dead_letters_total {value}
el4ner_end_to_end_seconds_bucket {value}
el4ner_end_to_end_seconds_bucket{{le="x"}} {value}
el4ner_documents_total {value}
"""
        health.take([parse_samples(odd)], 5)
        report = health.report()
    assert report["end_to_end"] == {"p50": None, "p95": None}
