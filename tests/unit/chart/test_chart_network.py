"""Who reaches whom in what the chart makes of the examples: policies, services, ports. Needs helm: `make chart`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import EXAMPLES, Rendered, of_example, read_yaml, selects, settings_of

pytestmark = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def allowed(rendered: Rendered, labels: Mapping[str, str], direction: str) -> list[Any]:
    policies = rendered.of_kind("NetworkPolicy").values()
    rules = [
        policy["spec"].get(direction) or [] for policy in policies if selects(policy["spec"]["podSelector"], labels)
    ]
    return [port["port"] for each in rules for rule in each for port in rule["ports"]]


def test_pods_reach_what_they_need_and_nothing_else(example: Path, tmp_path: Path) -> None:
    rendered = of_example(example)
    default = rendered.of_kind("NetworkPolicy")["default"]["spec"]
    beyond = {port["port"] for rule in read_yaml(example).get("networkPolicy", {}).get("extraEgress", ())
              for port in rule["ports"]}  # fmt: skip
    for name, labels, pod in rendered.pods():
        assert selects(default["podSelector"], labels), name
        container = pod["containers"][0]
        place = tmp_path / name
        place.mkdir()
        settings = settings_of(rendered, f"{name}/", pod, container, place)
        kafka = {int(server.rpartition(":")[2]) for server in settings.kafka.servers}
        needed = {53} | beyond
        if name != "serve" or settings.serve.follow_examples:
            needed |= kafka
            if settings.kafka.registry.url is not None and name != "topics":
                needed.add(443)
        if settings.redis.enabled and "models" in {each["name"] for each in pod.get("initContainers", ())}:
            needed.add(int((re.findall(r":(\d+)(?:/|$)", settings.redis.url) or ["6379"])[0]))
        if name == "ui":
            needed |= {"web", "http"}
        assert set(allowed(rendered, labels, "egress")) == needed, name
        inward = {port["name"] for port in container.get("ports", ())}
        assert set(allowed(rendered, labels, "ingress")) == inward, name


def test_nobody_is_let_in_by_an_empty_list(example: Path) -> None:
    nobody: dict[str, Any] = {
        "networkPolicy": {"metricsFrom": []},
        "serve": {"ingressFrom": []},
        "ui": {"ingressFrom": []},
    }
    for policy in Rendered.of(example, values=nobody).of_kind("NetworkPolicy").values():
        for rule in policy["spec"].get("ingress") or []:
            assert rule["from"], policy["metadata"]["name"]


def test_services_lead_to_ports_that_are_there(example: Path) -> None:
    rendered = of_example(example)
    for name, service in rendered.of_kind("Service").items():
        served = [
            container
            for _, labels, pod in rendered.pods()
            if selects({"matchLabels": service["spec"]["selector"]}, labels)
            for container in pod["containers"]
        ]
        (container,) = served
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] == container["ports"][0]["name"], name
        assert port["port"] == container["ports"][0]["containerPort"], name
    for name, ingress in rendered.of_kind("Ingress").items():
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"]["name"] == rendered.of_kind("Service")[name]["metadata"]["name"]
        assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]


def test_the_page_asks_services_that_are_there(example: Path, tmp_path: Path) -> None:
    rendered = of_example(example)
    for name, pod, container in rendered.containers():
        if container["name"] != "ui":
            continue
        page = settings_of(rendered, name, pod, container, tmp_path).ui
        urls = [*page.metrics_urls, *([] if page.serve_url is None else [page.serve_url])]
        services = {service["metadata"]["name"]: service for service in rendered.of_kind("Service").values()}
        for url in urls:
            host, port = re.findall(r"http://([a-z0-9-]+):(\d+)", url)[0]
            assert int(port) == services[host]["spec"]["ports"][0]["port"]
        assert (page.serve_url is not None) == ("serve" in rendered.of_kind("Deployment"))


def test_what_prometheus_selects_has_metrics(example: Path) -> None:
    rendered = of_example(example)
    for monitor in rendered.of_kind("PodMonitor").values():
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        chosen = [pod for _, labels, pod in rendered.pods() if selects(monitor["spec"]["selector"], labels)]
        assert chosen
        for pod in chosen:
            assert endpoint["port"] in {port["name"] for port in pod["containers"][0]["ports"]}
            assert pod["containers"][0]["name"] in {"worker", "serve"}
            assert ("authorization" in endpoint) == (pod["containers"][0]["name"] == "serve")
