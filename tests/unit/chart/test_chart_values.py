"""What the chart refuses, and what becomes of single values. Needs helm: `make chart`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import Rendered, laid_over, template
from workers.config import load_stream_settings

WORKING = {"config": {"kafka": {"bootstrap_servers": "kafka:9092"}}}

SASL = {"config": {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}}}


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
        ({"config": {"serve": {"host": "0.0.0.0"}}}, "config.serve.host"),
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
        ({"workers": {"pipeline": {"replicas": 5}}}, "replicas of pipeline is 5, and topics have 4 partitions"),
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
