"""Dashboard, alert rules, scrape configuration and their page of the docs name only what there is, and all of it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.support.paths import ROOT
from workers.roles import ENTITIES, PIPELINE, REDACT, STAGED_ROLES
from workers.telemetry.metric_catalogue import CATALOGUE, as_table

DOCKER = ROOT / "docker"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

# What Prometheus adds, and what its client library shows of a process.
GIVEN = {
    "up": set[str](),
    "process_start_time_seconds": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
}
TARGET_LABELS = {"job", "instance"}
LABELS = GIVEN | {
    series: {*spec.labels, *(["le"] if series.endswith("_bucket") else [])}
    for spec in CATALOGUE
    for series in spec.series
}
KEYWORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_WORD = re.compile(r"(?<![\w.$])([a-zA-Z_:][a-zA-Z0-9_:]*)(?![\w:])(?!\s*\()")


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCKER / "grafana" / "el4ner.json").read_text(encoding="utf-8"))
    return loaded


def load(path: str) -> Any:
    return yaml.safe_load((DOCKER / path).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    (group,) = load("prometheus/alerts.yml")["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def metrics_of(query: str) -> set[str]:
    """The names of the series that a PromQL expression asks for."""
    bare = _RANGE.sub(" ", _STRING.sub('""', query))
    bare = _GROUPING.sub(" ", _SELECTOR.sub(r" \1 ", bare))
    return {word for word in _WORD.findall(bare) if word not in KEYWORDS}


def labels_of(query: str) -> dict[str, set[str]]:
    """The labels that each selector of a PromQL expression asks for."""
    found: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', query)):
        found.setdefault(name, set()).update(re.findall(r"([a-zA-Z_]\w*)\s*[=!]", matchers))
    return found


def groupings_of(query: str) -> set[str]:
    return {label for labels in _GROUPING.findall(query) for label in re.findall(r"\w+", labels)}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for rule in alerts():
        yield f"alert {rule['alert']}", rule["expr"]


QUERIES = list(queries())


def test_metrics_are_found_in_queries() -> None:
    query = (
        'sum by (stage) (rate(a_total{outcome="x{y}", job=~"$job"}[5m])) / on (job) group_left (version) b'
        " and deriv(sum(c)[30m:1m]) > 1e3"
    )
    assert metrics_of(query) == {"a_total", "b", "c"}
    assert labels_of(query) == {"a_total": {"outcome", "job"}}
    assert groupings_of(query) == {"stage", "job", "version"}


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[f"{where}-{n}" for n, (where, _) in enumerate(QUERIES)])
def test_queries_ask_for_what_the_catalogue_has(where: str, query: str) -> None:
    names = metrics_of(query)
    assert names, where
    assert names <= set(LABELS), where
    for name, labels in labels_of(query).items():
        assert labels <= LABELS[name] | TARGET_LABELS, where
    assert groupings_of(query) <= set().union(*(LABELS[name] for name in names)) | TARGET_LABELS, where


def test_the_dashboard_shows_everything_in_the_catalogue() -> None:
    shown = set().union(*(metrics_of(target["expr"]) for panel in panels() for target in panel["targets"]))
    assert [spec.name for spec in CATALOGUE if not shown & set(spec.series)] == []


# --- the dashboard -------------------------------------------------------------------------------------------------


def test_the_dashboard_works_with_any_data_source() -> None:
    board = dashboard()
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["query"] == "prometheus"
    sources = [panel["datasource"] for panel in panels()]
    sources += [target["datasource"] for panel in panels() for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert "id" not in board


def test_panels_lie_beside_each_other_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    everything = dashboard()["panels"]
    for panel in everything:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)


# --- the alert rules -----------------------------------------------------------------------------------------------


def test_every_alert_has_its_line_in_the_docs_and_none_is_there_without_one() -> None:
    headings = re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_has_happened(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "labels", "annotations"} | ({"for"} & set(rule))
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    labels = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    grouped = groupings_of(rule["expr"])
    assert labels <= (grouped or LABELS[min(metrics_of(rule["expr"]))] | TARGET_LABELS)


# --- how they are run ----------------------------------------------------------------------------------------------


def test_prometheus_scrapes_every_worker_of_the_compose_file_where_it_listens() -> None:
    config = load("prometheus/prometheus.yml")
    assert [(DOCKER / "prometheus" / name).is_file() for name in config["rule_files"]] == [True]
    (job,) = config["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert names["names"] == [*STAGED_ROLES, PIPELINE, REDACT, ENTITIES]
    laid_over = ("compose.yaml", *(f"compose.{name}.yaml" for name in ("one-hop", "redact", "entities")))
    assert set(names["names"]) <= {service for file in laid_over for service in load(file)["services"]}
    assert f"EL4NER_WORKER__WEB_PORT={names['port']}" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    # The alert rules ask for this name.
    assert job["job_name"] == "el4ner"
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_what_compose_mounts_is_there() -> None:
    monitoring = load("compose.monitoring.yaml")
    mounted = [volume.split(":")[0] for service in monitoring["services"].values() for volume in service["volumes"]]
    assert all((DOCKER / source).exists() for source in mounted if source.startswith("./"))
    assert {source for source in mounted if not source.startswith("./")} == set(monitoring["volumes"])


def test_the_dashboard_is_where_grafana_looks() -> None:
    grafana = load("compose.monitoring.yaml")["services"]["grafana"]
    (provider,) = load("grafana/provisioning/dashboards/el4ner.yaml")["providers"]
    target = f"{provider['options']['path']}/el4ner.json"
    assert f"./grafana/el4ner.json:{target}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == target
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_monitoring_is_laid_over_the_pipeline_bounded_and_on_the_loopback_address() -> None:
    pipeline, monitoring = load("compose.yaml"), load("compose.monitoring.yaml")
    assert set(monitoring["services"]).isdisjoint(pipeline["services"])
    assert set(monitoring["volumes"]).isdisjoint(pipeline["volumes"])
    for name, service in monitoring["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["mem_limit"], name
        assert service["healthcheck"], name
        assert service["restart"] == "unless-stopped", name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_the_compose_file_follows_the_schema_of_the_specification() -> None:
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8")))
    errors = validator.iter_errors(load("compose.monitoring.yaml"))
    assert [f"{error.instance_path}: {error.message}" for error in errors] == []


# --- the docs ------------------------------------------------------------------------------------------------------


def test_the_table_of_metrics_is_the_catalogue() -> None:
    begin, end = "<!-- metrics: begin -->\n\n", "\n<!-- metrics: end -->"
    table = OPERATIONS.partition(begin)[2].partition(end)[0]
    assert table == as_table(), (
        "docs/operations.md differs from the catalogue; the table that belongs between the comments is that of"
        " python -c 'import workers.telemetry.metric_catalogue; print(workers.telemetry.metric_catalogue.as_table())'"
    )


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", OPERATIONS):
        assert (ROOT / "docs" / target).is_file(), target


def test_examples_in_the_page_are_valid() -> None:
    examples = re.findall(r"^( *)```yaml\n(.*?)^ *```", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    probes, monitor = (yaml.safe_load(text) for _, text in examples)
    assert probes["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "web", "path": "/metrics"}]
