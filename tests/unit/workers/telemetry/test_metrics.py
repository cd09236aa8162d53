"""The metrics: what is recorded and observed comes out as the catalogue says, and nothing without a bound does."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from workers.telemetry.metric_catalogue import CATALOGUE, MetricSpec
from workers.telemetry.metrics import OTHER, Metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"
STAGES = ("extract", "classify", "validate", "aggregate")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    text = metrics.exposition()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_plain(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def exercised() -> Metrics:
    """Every metric of the catalogue has a value."""
    metrics = Metrics(version="1.2.3", stages=STAGES)
    metrics.stage_batch("extract", 32, 0.2)
    metrics.engine_busy(0.2)
    metrics.tokens("extract", prompt=100, cached=60, new=5)
    metrics.answered("extract", "ok", 31)
    metrics.stage_latency("extract", 0.3, trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    metrics.dead_letter("extract", "json")
    metrics.retried("extract", "engine-out-of-memory")
    metrics.rebalanced("extract")
    metrics.tagged("complete", {"person": 2})
    metrics.end_to_end(1.5)
    metrics.transaction("committed", 0.01)
    metrics.withheld("partial")
    metrics.http_request("/v1/tag", 200, 0.02)
    for spec in CATALOGUE:
        if spec.observed:
            metrics.observe(spec.name, lambda spec=spec: {tuple("x" for _ in spec.labels): 7.0})  # type: ignore[misc]
    return metrics


# --- the catalogue -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_names_and_units_follow_the_conventions(spec: MetricSpec) -> None:
    assert spec.name.startswith("el4ner_")
    assert spec.name.endswith("_total") == (spec.kind == "counter")
    assert spec.name.removesuffix("_total").endswith(spec.unit)
    assert spec.help.endswith(".")
    assert spec.watch.endswith(".")
    assert bool(spec.buckets) == (spec.kind == "histogram")
    assert list(spec.buckets) == sorted(set(spec.buckets))


def test_every_name_is_there_once() -> None:
    assert len({spec.name for spec in CATALOGUE}) == len(CATALOGUE)


def test_everything_in_the_catalogue_is_exposed_with_its_labels() -> None:
    found = samples(exercised())
    for spec in CATALOGUE:
        for series in spec.series:
            labels = [{name for name, _ in own} - {"le"} for name, own in found if name == series]
            assert labels, series
            assert all(own == set(spec.labels) for own in labels), series


def test_nothing_is_exposed_that_is_not_in_the_catalogue() -> None:
    known = {series for spec in CATALOGUE for series in spec.series}
    names = {name for name, _ in samples(exercised())}
    assert {name for name in names if not name.startswith("process_")} == known


# --- recording -----------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_what_is_shown() -> None:
    metrics = exercised()
    assert value(metrics, "el4ner_documents_total", stage="extract", outcome="ok") == 31
    assert value(metrics, "el4ner_batch_documents_sum", stage="extract") == 32
    assert value(metrics, "el4ner_batch_seconds_count", stage="extract") == 1
    assert value(metrics, "el4ner_engine_busy_seconds_total") == pytest.approx(0.2)
    assert value(metrics, "el4ner_cached_prompt_tokens_total", stage="extract") == 60
    assert value(metrics, "el4ner_dead_letters_total", stage="extract", code="json") == 1
    assert value(metrics, "el4ner_entities_total", type="person") == 2
    assert value(metrics, "el4ner_end_to_end_seconds_bucket", le="2.5") == 1
    assert value(metrics, "el4ner_end_to_end_seconds_bucket", le="1.0") == 0
    assert value(metrics, "el4ner_transactions_total", outcome="committed") == 1


def test_counters_begin_at_zero_so_that_the_first_failure_is_a_rise() -> None:
    metrics = Metrics(version="1", stages=["extract", "aggregate"])
    assert value(metrics, "el4ner_documents_total", stage="extract", outcome="failed") == 0
    assert value(metrics, "el4ner_tagged_documents_total", status="partial") == 0
    assert value(metrics, "el4ner_transactions_total", outcome="aborted") == 0
    assert value(metrics, "el4ner_documents_total", stage="classify", outcome="failed") is None


def test_two_of_them_share_nothing() -> None:
    one, other = Metrics(version="1"), Metrics(version="1")
    one.answered("extract", "ok")
    assert value(other, "el4ner_documents_total", stage="extract", outcome="ok") is None


def test_clocks_that_disagree_take_no_negative_time() -> None:
    metrics = Metrics(version="1")
    metrics.end_to_end(-3.0)
    assert value(metrics, "el4ner_end_to_end_seconds_sum") == 0
    assert value(metrics, "el4ner_end_to_end_seconds_count") == 1


def test_threads_lose_no_counts() -> None:
    metrics = Metrics(version="1")
    threads = [
        threading.Thread(target=lambda: [metrics.answered("extract", "ok") for _ in range(1_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "el4ner_documents_total", stage="extract", outcome="ok") == 4_000


# --- bounds --------------------------------------------------------------------------------------------------------


def test_types_beyond_the_bound_are_counted_together() -> None:
    metrics = Metrics(version="1")
    for number in range(300):
        metrics.tagged("complete", {f"type-{number}": 1})
    metrics.tagged("complete", {"type-0": 1})
    found = {labels: count for (name, labels), count in samples(metrics).items() if name == "el4ner_entities_total"}
    assert len(found) == 101
    assert found[frozenset({("type", OTHER)})] == 200
    assert found[frozenset({("type", "type-0")})] == 2


def test_only_the_pools_types_have_a_label_where_they_are_known() -> None:
    metrics = Metrics(version="1", entity_types=["person"])
    metrics.tagged("complete", {"person": 1, "from a hostile message": 2})
    assert value(metrics, "el4ner_entities_total", type="person") == 1
    assert value(metrics, "el4ner_entities_total", type=OTHER) == 2


def test_codes_are_bounded_in_number_and_length() -> None:
    metrics = Metrics(version="1")
    metrics.dead_letter("extract", "x" * 10_000)
    for number in range(1_000):
        metrics.retried("extract", f"code-{number}")
    assert value(metrics, "el4ner_dead_letters_total", stage="extract", code=OTHER) == 1
    assert len([name for name, _ in samples(metrics) if name == "el4ner_retries_total"]) == 65


# --- observing -----------------------------------------------------------------------------------------------------


def test_observed_values_are_read_at_every_scrape() -> None:
    metrics = Metrics(version="1")
    errors = [3]
    metrics.observe("el4ner_cache_errors_total", lambda: {("extract",): errors[0]})
    assert value(metrics, "el4ner_cache_errors_total", stage="extract") == 3
    errors[0] = 5
    assert value(metrics, "el4ner_cache_errors_total", stage="extract") == 5


def test_stages_of_one_process_add_to_the_same_metric() -> None:
    metrics = Metrics(version="1")
    metrics.observe("el4ner_consumer_lag_messages", lambda: {("extract", "documents", "0"): 4})
    metrics.observe("el4ner_consumer_lag_messages", lambda: {("classify", "span-candidates", "0"): 6})
    lag = "el4ner_consumer_lag_messages"
    assert value(metrics, lag, stage="extract", topic="documents", partition="0") == 4
    assert value(metrics, lag, stage="classify", topic="span-candidates", partition="0") == 6


def test_what_this_process_does_not_have_is_not_shown() -> None:
    names = {name for name, _ in samples(Metrics(version="1", stages=["extract"]))}
    assert "el4ner_join_open_documents" not in names


@pytest.mark.parametrize("name", ["el4ner_unheard_of", "el4ner_documents_total"])
def test_only_what_the_catalogue_has_as_observed_can_be_observed(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Metrics(version="1").observe(name, lambda: 0)


def test_a_value_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(version="1")

    def broken() -> float:
        raise RuntimeError("no such partition")

    metrics.observe("el4ner_join_open_documents", broken)
    metrics.observe("el4ner_cache_errors_total", lambda: {("too", "many", "labels"): 1})
    metrics.observe("el4ner_join_open_bytes", lambda: 9)
    for _ in range(3):
        assert value(metrics, "el4ner_join_open_bytes") == 9
        assert value(metrics, "el4ner_join_open_documents") is None
    assert [record.getMessage() for record in caplog.records] == [
        "metric el4ner_join_open_documents cannot be read",
        "metric el4ner_cache_errors_total cannot be read",
    ]


# --- the text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=rubbish, text/html", "application/openmetrics-text; version=1.0.0"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_is_what_was_asked_for(accept: str, kind: str) -> None:
    assert exercised().exposition(accept)[1].startswith(kind)


def test_openmetrics_is_valid_and_leads_from_a_bucket_to_a_trace() -> None:
    families = list(parse_openmetrics(exercised().exposition(OPENMETRICS)[0].decode()))
    units = {family.name: family.unit for family in families}
    assert units["el4ner_consumer_lag_messages"] == "messages"
    exemplars = [sample.exemplar for family in families for sample in family.samples if sample.exemplar is not None]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}]


def test_no_series_is_doubled_by_its_time_of_creation() -> None:
    for accept in ("", OPENMETRICS):
        assert b"_created" not in exercised().exposition(accept)[0]
