"""The chart's files agree with the rest of the project, without helm."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, SecretStr

from tests.support.chart import CHART, EXAMPLES, laid_over, read_yaml
from tests.support.paths import ROOT
from tools.chart_schema import SCHEMA_FILE, chart_schema
from workers.config import KafkaSettings, StreamSettings, WorkerSettings, load_stream_settings
from workers.kafka.acls import Resource, Role, bindings
from workers.roles import ROLES
from workers.topics import Topic, app_id, topic_name

TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").rglob("*.*"))}


@pytest.fixture(scope="module")
def schema() -> Any:
    return jsonschema_rs.Draft202012Validator(json.loads(SCHEMA_FILE.read_bytes()), offline=True)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return read_yaml(CHART / "values.yaml")


def problems(schema: Any, values: dict[str, Any]) -> list[str]:
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in schema.iter_errors(values)]


# --- values ----------------------------------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(json.loads(SCHEMA_FILE.read_bytes()))


def test_the_schema_of_the_configuration_is_what_the_code_gives() -> None:
    written = SCHEMA_FILE.read_text(encoding="utf-8")
    assert written == chart_schema(written), "run: python -m tools chart"


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
def test_values_follow_the_schema(schema: Any, defaults: dict[str, Any], example: Path | None) -> None:
    assert problems(schema, defaults if example is None else laid_over(defaults, read_yaml(example))) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("topolgy", "stages"),
        ("topology", "stage"),
        ("workers.extracts", {}),
        ("workers.extract.replica", 2),
        ("workers.extract.replicas", "two"),
        ("defaults.env", [{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {}}}]),
        ("secrets.kafka.password", "hunter2"),
        ("cache.type", "pvc"),
        ("networkPolicy.metricsFrom", [{}]),
        ("members.small", {"members": ["small"]}),
        ("members.small", {"members": ["small"], "roles": ["aggregate"]}),
        ("config.worker.batch_documnts", 3),
        ("config.worker.batch_documents", "many"),
        ("config.kafka.security_protocol", "TLS"),
        ("config.redaction.types.person", "hide"),
        ("config.worker_", {}),
    ],
)
def test_a_value_that_means_nothing_is_refused(schema: Any, defaults: dict[str, Any], path: str, value: Any) -> None:
    values = table = copy.deepcopy(defaults)
    *parents, last = path.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value
    assert problems(schema, values) != []


def test_what_the_documentation_configures_can_be_values(schema: Any, defaults: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    config = tomllib.loads(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    assert problems(schema, laid_over(defaults, {"config": config})) == []
    short = {"redaction": {"types": {"person": "mask", "location": {"action": "keep", "floor": 0.3}}}}
    assert problems(schema, laid_over(defaults, {"config": short})) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_configurations_are_accepted_by_the_program(example: Path) -> None:
    config = read_yaml(example)["config"]
    # Who the user is comes from a Secret.
    config["kafka"].pop("security_protocol", None)
    config["kafka"].pop("sasl_mechanism", None)
    config["kafka"].get("registry", {}).pop("username", None)
    load_stream_settings(environ={}, overrides=config)


def test_every_component_can_be_told_what_defaults_say(schema: Any, defaults: dict[str, Any]) -> None:
    own = copy.deepcopy(defaults["defaults"])
    assert problems(schema, laid_over(defaults, {"workers": dict.fromkeys(defaults["workers"], own)})) == []
    without = {key: value for key, value in own.items() if key != "autoscaling"}
    assert problems(schema, laid_over(defaults, {"redact": own, "serve": without, "ui": without})) == []


# --- templates -------------------------------------------------------------------------------------------------------


def test_every_role_is_in_the_chart_and_reads_what_it_does_in_the_code() -> None:
    kafka = KafkaSettings(topic_prefix="t.", documents_topic="texts")
    (line,) = re.findall(r"\$topics := dict (.*?) -\}\}", TEMPLATES["_components.tpl"])
    topics = {role: re.findall(r'"([^"]+)"', names) for role, names in re.findall(r'"(\w+)" \(list (.*?)\)', line)}
    assert set(topics) == set(ROLES)
    for role, names in topics.items():
        rights = bindings(kafka, roles=[Role(role)])
        read = {acl.name for acl in rights if acl.resource is Resource.TOPIC and "Read" in acl.operations}
        # Without what is read beside the consumer group: to be taught, and to go on after a restart.
        grouped = {name for name in read if not name.endswith(("pool-examples", "-changelog"))}
        assert {topic_name(kafka, Topic(name)) for name in names} == grouped, role


def test_defaults_that_the_templates_count_with_are_the_codes() -> None:
    text = "\n".join(TEMPLATES.values())
    partitions = set(re.findall(r"partitions \| default (\d+)", text))
    assert partitions == {str(KafkaSettings().partitions)}
    seconds = set(re.findall(r'dig "worker" "shutdown_seconds" (\d+)', text))
    assert seconds == {f"{WorkerSettings().shutdown_seconds:g}"}
    assert app_id(KafkaSettings(topic_prefix="a."), "extract") == "a.el4ner-extract"
    assert 'printf "%sel4ner-%s"' in text


def test_every_setting_that_is_a_secret_is_refused_in_values() -> None:
    (line,) = re.findall(r"range \$path := list (.*?) -\}\}", TEMPLATES["_checks.tpl"])
    refused = set(re.findall(r'"([^"]+)"', line))
    secrets = set(secret_settings(StreamSettings))
    assert {path for path in secrets if not path.startswith("models.")} <= refused
    assert {path for path in secrets if path.startswith("models.")} == {"models.server.api_key"}
    assert 'dig "server" "api_key"' in TEMPLATES["_checks.tpl"]


def secret_settings(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        for kind in kinds_in(field.annotation):
            if kind is SecretStr:
                yield f"{path}{name}"
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from secret_settings(kind, f"{path}{name}.")


def kinds_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from kinds_in(inner)


def test_the_chart_is_of_this_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = read_yaml(CHART / "Chart.yaml")
    assert chart["appVersion"] == chart["version"] == project["version"]


def test_a_service_link_would_stop_el4ner_and_there_is_none() -> None:
    # Kubernetes sets it for a Service that is called el4ner-serve.
    with pytest.raises(Exception, match="EL4NER_SERVE_PORT"):
        load_stream_settings(environ={"EL4NER_SERVE_PORT": "tcp://10.0.0.1:8088"})
    for name in ("_pod.tpl", "_one_pod.tpl"):
        assert "enableServiceLinks: false" in TEMPLATES[name]


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_the_images_are_made_for_the_chart(name: str) -> None:
    image = (ROOT / "docker" / name).read_text(encoding="utf-8")
    uid = re.findall(r"runAsUser: (\d+)", TEMPLATES["_pod.tpl"])
    assert uid == re.findall(r"^USER (\d+)", image, re.MULTILINE)
    assert f"groupadd --system --gid {uid[0]} " in image
    assert f"--uid {uid[0]} --gid {uid[0]} " in image
    environment = dict(re.findall(r"^(?:ENV|   ) (\w+)=(\S+)", image, re.MULTILINE))
    text = "\n".join(TEMPLATES.values())
    assert f"mountPath: {environment['EL4NER_CACHE_DIR']}\n" in text
    assert f"mountPath: {environment['EL4NER_WORKER__DATA_DIR']}\n" in text
    assert environment["HF_HOME"].startswith(environment["EL4NER_CACHE_DIR"])
    # What libraries write beside the cache goes where a read-only root file system has room.
    written = {key: value for key, value in environment.items() if key.endswith(("_CACHE_DIR", "_CACHE_PATH"))}
    assert all(value.startswith(("/var/lib/el4ner/cache", "/tmp/")) for value in written.values()), written


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_the_images_have_what_the_charts_commands_need(name: str) -> None:
    text = (ROOT / "docker" / name).read_text(encoding="utf-8")
    # Whatever a setting or a command of the chart may ask for.
    needed = {"stream", "embedded", "otel", "serve", "ui", "redact", "registry"}
    needed |= {"gpu"} if name.endswith("gpu") else set()
    for command in re.findall(r"uv (?:export|sync) [^\\]*", text):
        assert set(re.findall(r"--extra (\w+)", command)) == needed, command
