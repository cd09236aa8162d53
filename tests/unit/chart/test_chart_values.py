"""What the chart refuses, and what becomes of single values. Needs helm: `make chart`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import Rendered, laid_over, template
from tests.support.paths import ROOT
from workers.config import load_stream_settings

WORKING = {"config": {"kafka": {"bootstrap_servers": "kafka:9092"}}}

SASL = {"config": {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}}}


def plain(name: str, value: str) -> dict[str, Any]:
    return {"defaults": {"env": [{"name": name, "value": value}]}}


def brokers(servers: str) -> dict[str, Any]:
    return {"config": {"kafka": {"bootstrap_servers": servers}}}


def scaled(**autoscaling: int) -> dict[str, Any]:
    return {"workers": {"pipeline": {"autoscaling": {"enabled": True} | autoscaling}}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"config": {"kafka": {"bootstrap_servers": None}}}, "config.kafka.bootstrap_servers: name your brokers"),
        ({"topolgy": "stages"}, "topolgy"),
        ({"config": {"worker": {"batch_documnts": 3}}}, "batch_documnts"),
        (
            {"config": {"kafka": {"sasl_password": "hunter2"}}},
            "config.kafka.sasl_password: values are kept",
        ),
        ({"config": {"redis": {"url": "redis://:hunter2@cache/0"}}}, "leave user and password out"),
        ({"config": {"redaction": {"keys": "a:b"}}}, "config.redaction.keys: values are kept in the clear"),
        (
            {"config": {"models": {"fleet": {"server": {"api_key": "k", "urls": ["http://a"]}}}}},
            "EL4NER_MODELS__FLEET__SERVER__API_KEY by valueFrom",
        ),
        ({"defaults": {"env": [{"name": "EL4NER_UI__READER_TOKEN", "value": "x"}]}}, "has its value in the clear"),
        (
            {"config": {"models": {"fleet": {"server": {"urls": ["http://a", "https://u:hunter2@h/v1"]}}}}},
            "config.models.fleet.server.urls: values are kept in the clear",
        ),
        ({"config": {"redis": {"url": "redis://cache/0?password=hunter2"}}}, "config.redis.url: values are kept"),
        (
            {"config": {"kafka": {"registry": {"url": "https://u:hunter2@registry"}}}},
            "config.kafka.registry.url: values are kept in the clear; leave user and password out, and name a Secret "
            "in secrets.registry",
        ),
        (plain("EL4NER_REDIS__URL", "redis://:hunter2@cache"), "EL4NER_REDIS__URL has a user, a password"),
        (plain("HTTPS_PROXY", "http://u:hunter2/x@proxy:3128"), "HTTPS_PROXY has a user, a password"),
        (plain("EL4NER_REDIS", '{url = "redis://cache", password = "hunter2"}'), "EL4NER_REDIS sets a secret"),
        (plain("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer hunter2"), "HEADERS has its value in the clear"),
        (plain("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=hunter2"), "HEADERS has its value in the clear"),
        (plain("AWS_SECRET_ACCESS_KEY", "hunter2"), "ACCESS_KEY has its value in the clear"),
        ({"config": {"serve": {"host": "0.0.0.0"}}}, "config.serve.host"),
        (brokers("kafka-bootstrap.kafka"), '"kafka-bootstrap.kafka" is not HOST:PORT'),
        (brokers("a:9092,b"), '"b" is not HOST:PORT'),
        (brokers("a:9092,"), '"" is not HOST:PORT'),
        (brokers("kafka:0"), '"kafka:0" is not HOST:PORT'),
        (brokers("kafka:65536"), '"kafka:65536" is not HOST:PORT'),
        ({"config": {"redis": {"url": "redis://cache:70000/0"}}}, "config.redis.url: its port is none of 1 to 65535"),
        (
            {"config": {"kafka": {"registry": {"url": "http://registry:0/apis"}}}},
            "config.kafka.registry.url: its port is none of 1 to 65535",
        ),
        (SASL, "name the Secret with user and password in secrets.kafka.name"),
        (
            {"config": {"kafka": {"security_protocol": "SASL_SSL"}}, "secrets": {"kafka": {"name": "user"}}},
            "set config.kafka.sasl_mechanism",
        ),
        ({"secrets": {"kafka": {"name": "user"}}}, "secrets.kafka.name has no effect"),
        ({"secrets": {"kafkaTls": {"name": "ca"}}}, "secrets.kafkaTls.name has no effect"),
        ({"secrets": {"redis": {"name": "user"}}}, "secrets.redis.name has no effect"),
        ({"serve": {"enabled": True}}, "name the Secret with its token"),
        ({"ui": {"enabled": True}}, "name the Secret with its tokens"),
        ({"redact": {"enabled": True}}, "el4ner redact keygen"),
        ({"redact": {"enabled": True}, "config": {"redaction": {"action": "surrogate"}}}, "el4ner redact keygen"),
        ({"workers": {"pipeline": {"replicas": 5}}}, "replicas of pipeline is 5, and topics have 4 partitions"),
        (scaled(minReplicas=6), "autoscaling.minReplicas of pipeline is 6, and there are never more than 4"),
        (scaled(minReplicas=3, maxReplicas=2), "minReplicas of pipeline is 3, and there are never more than 2"),
        ({"members": {"a": {"members": ["a"], "roles": ["classify"]}}}, "set topology to stages"),
        (
            {
                "topology": "stages",
                "config": {"ensemble": {"members": ["a", "b"]}},
                "members": {"a": {"members": ["a"], "roles": ["extract", "classify", "validate"]}},
            },
            'no process has the member "b"',
        ),
        (
            {
                "topology": "stages",
                "config": {"ensemble": {"members": ["a"]}},
                "members": {"a": {"members": ["a"], "roles": ["extract", "classify", "validate"]}},
            },
            "combine reads the calibration from the cache",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], said: str) -> None:
    done = template(values=laid_over(WORKING, values))
    assert done.returncode != 0
    assert said in done.stderr
    assert "hunter2" not in done.stderr


def test_toml_says_what_the_values_say(tmp_path: Path) -> None:
    config = {
        "kafka": {"bootstrap_servers": "kafka:9092", "retention_hours": 1.5, "max_message_bytes": 16_777_216},
        "redis": {"url": "redis://cache/0?a=1&b=<2>", "answer_ttl_seconds": 604_800},
        "method": {"evidence": ["neighbours"], "adaptive": True, "drift_threshold": 0.0000025},
        "pools": {"default": "ein \"Pool\"", "paths": {"ein \"Pool\"": "C:\\pools\n2", "plain": "shipped:news"}},
        "redaction": {"types": {"person": "mask", "place of birth": {"action": "keep", "floor": 0.25}}},
    }  # fmt: skip
    file = tmp_path / "el4ner.toml"
    file.write_text(Rendered.of(values={"config": config}).toml(), encoding="utf-8")
    assert load_stream_settings(file, environ={}) == load_stream_settings(environ={}, overrides=config)


def test_what_a_component_says_wins_over_the_defaults_also_where_it_is_no() -> None:
    rendered = Rendered.of(
        values=WORKING
        | {
            "topology": "stages",
            "defaults": {
                "podDisruptionBudget": True,
                "env": [{"name": "A", "value": "1"}],
                "autoscaling": {"enabled": True, "lagThreshold": 7},
            },
            "workers": {
                "extract": {
                    "podDisruptionBudget": False,
                    "env": [{"name": "A", "value": "2"}],
                    "autoscaling": {"enabled": False},
                },
                "classify": {"autoscaling": {"minReplicas": 0}},
            },
        }
    )
    assert set(rendered.of_kind("PodDisruptionBudget")) == {"classify", "validate", "aggregate"}
    scaled = rendered.of_kind("ScaledObject")
    assert set(scaled) == {"classify", "validate", "aggregate"}
    assert scaled["classify"]["spec"]["minReplicaCount"] == 0
    assert {trigger["metadata"]["lagThreshold"] for trigger in scaled["classify"]["spec"]["triggers"]} == {"7"}
    environ = {name: container["env"] for name, _, container in rendered.containers()}
    assert [each for each in environ["extract/worker"] if each["name"] == "A"] == [{"name": "A", "value": "2"}]
    assert [each for each in environ["classify/worker"] if each["name"] == "A"] == [{"name": "A", "value": "1"}]


def test_a_gpu_is_a_limit_of_the_worker_and_not_of_what_prepares_its_models() -> None:
    rendered = Rendered.of(values=WORKING | {"workers": {"pipeline": {"gpu": {"count": 1, "resource": "amd.com/gpu"}}}})
    limits = {name: container["resources"]["limits"] for name, _, container in rendered.containers()}
    assert limits["pipeline/worker"]["amd.com/gpu"] == 1
    assert "amd.com/gpu" not in limits["pipeline/models"]


def test_a_worker_that_says_only_how_many_gpus_has_those_of_the_defaults() -> None:
    own = {"topology": "stages", "workers": {"classify": {"gpu": {"count": 1}}, "extract": {"gpu": {"count": 0}}}}
    for kind, defaults in [("nvidia.com/gpu", {}), ("amd.com/gpu", {"gpu": {"count": 2, "resource": "amd.com/gpu"}})]:
        rendered = Rendered.of(values=WORKING | own | {"defaults": defaults})
        limits = {name: container["resources"]["limits"] for name, _, container in rendered.containers()}
        assert set(limits["classify/worker"]) == {"memory", kind}
        assert limits["classify/worker"][kind] == 1
        assert set(limits["extract/worker"]) == {"memory"}


def test_what_has_no_secret_in_it_may_be_a_variable() -> None:
    values = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.tracing:4318",
        "EL4NER_UI__PROXY_USER_HEADER": "X-Forwarded-User",
        "EL4NER_KAFKA__REGISTRY": '{url = "http://registry", password_file = "/etc/registry/password"}',
        "CONTACT": "ada@example.org",
    }
    env = [{"name": name, "value": value} for name, value in values.items()]
    rendered = Rendered.of(values=WORKING | {"defaults": {"env": env}})
    (worker,) = [container for name, _, container in rendered.containers() if name == "pipeline/worker"]
    assert values.items() <= {each["name"]: each.get("value") for each in worker["env"]}.items()


def test_scaling_by_default_leaves_out_what_has_one_process_at_work() -> None:
    both = {
        "defaults": {"replicas": 2, "autoscaling": {"enabled": True, "minReplicas": 4}},
        "entities": {"enabled": True},
    }
    rendered = Rendered.of(values=WORKING | both)
    assert set(rendered.of_kind("ScaledObject")) == {"pipeline"}
    replicas = {name: each["spec"].get("replicas") for name, each in rendered.of_kind("Deployment").items()}
    assert replicas == {"pipeline": None, "entities": 2}
    assert rendered.of_kind("ScaledObject")["pipeline"]["spec"]["minReplicaCount"] == 4


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://registry", 80),
        ("https://registry/apis/ccompat:7", 443),
        ("http://registry:8081/apis", 8081),
        ("http://[fd00::81]", 80),
        ("http://[fd00::81]:8081/?a=1:2", 8081),
    ],
)
def test_pods_may_reach_the_registry_at_its_port(url: str, port: int) -> None:
    rendered = Rendered.of(values=laid_over(WORKING, {"config": {"kafka": {"registry": {"url": url}}}}))
    (rule,) = rendered.of_kind("NetworkPolicy")["registry"]["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port}]


def test_several_brokers_may_be_written_with_spaces() -> None:
    values = laid_over(scaled(), brokers("a:9092, [fd00::1]:9093"))
    rendered = Rendered.of(values=values)
    (rule,) = rendered.of_kind("NetworkPolicy")["kafka"]["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [9092, 9093]
    (trigger,) = rendered.of_kind("ScaledObject")["pipeline"]["spec"]["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == "a:9092,[fd00::1]:9093"


def test_the_values_on_the_page_are_taken_and_mean_what_it_says() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"^ *```yaml\n(.*?)```", page, re.DOTALL | re.MULTILINE)]
    values = [block for block in blocks if "apiVersion" not in block]
    assert len(values) == 3
    for block in values:
        rendered = Rendered.of(values=laid_over(laid_over(WORKING, {"topology": "stages"}), block))
        limits = {name: container["resources"]["limits"] for name, _, container in rendered.containers()}
        assert limits["classify/worker"].get("nvidia.com/gpu") == block.get("workers", {}).get("classify", {}).get(
            "gpu", {}
        ).get("count")
