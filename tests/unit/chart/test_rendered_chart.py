"""What the chart makes of values, as a cluster and the pods' own commands would take it. Needs helm: `make chart`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.support.chart import (
    EXAMPLES,
    Rendered,
    helm,
    laid_over,
    method_settings_of,
    of_example,
    read_yaml,
    settings_of,
    workers_of,
)
from workers.cli.app import app
from workers.ensemble import members
from workers.kafka.acls import Resource, Role, bindings
from workers.shutdown.ending import CLOSE_SECONDS
from workers.topics import Topic, app_id, plan, redaction_topics, topic_name

SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|SECRET|API_KEY|ACCESS_KEY|__KEYS|HEADERS)$")

pytestmark = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


# --- pods ------------------------------------------------------------------------------------------------------------


def test_every_container_is_confined(example: Path) -> None:
    for name, pod, container in of_example(example).containers():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
        variables = [variable["name"] for variable in container["env"]]
        assert len(variables) == len(set(variables)), name


def test_every_process_that_stays_is_probed_where_it_listens(example: Path) -> None:
    for name, _, container in of_example(example).containers():
        if name.partition("/")[0] not in of_example(example).of_kind("Deployment") or container["name"] == "models":
            continue
        (port,) = container["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == port["name"], name
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == ("/livez" if container["name"] == "ui" else "/readyz")
        environ = {variable["name"]: variable.get("value") for variable in container["env"]}
        if container["name"] == "worker":
            assert environ["EL4NER_WORKER__WEB_PORT"] == str(port["containerPort"])
            assert environ["EL4NER_WORKER__WEB_HOST"] == "0.0.0.0"
        else:
            assert container["args"][1:] == ["--host", "0.0.0.0", "--port", str(port["containerPort"])]


def test_every_command_is_one_that_el4ner_has(example: Path) -> None:
    root: Any = typer.main.get_command(app)
    for name, _, container in of_example(example).containers():
        command, arguments = root, list(container["args"])
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        # It parses them, and runs nothing.
        command.make_context(name, arguments)


@pytest.mark.parametrize("with_users", [False, True])
def test_every_container_accepts_its_configuration(example: Path, with_users: bool, tmp_path: Path) -> None:
    # Everybody reads everything, also who does not connect: el4ner refuses a user that has no password.
    url = read_yaml(example)["config"].get("redis", {}).get("url", "redis://cache")
    values = {"config": {"serve": {"follow_examples": False}}}
    users = {"config": {"redis": {"url": url, "username": "tagger"}}, "secrets": {"redis": {"name": "user"}}}
    rendered = Rendered.of(example, values=laid_over(values, users if with_users else {}))
    for number, (name, pod, container) in enumerate(rendered.containers()):
        place = tmp_path / str(number)
        place.mkdir()
        if container["name"] == "models":
            method_settings_of(rendered, pod, container, place)
            continue
        settings = settings_of(rendered, name, pod, container, place)
        if container["name"] == "worker":
            members.check(settings, container["args"][1:])


def test_a_pod_has_time_to_end(example: Path, tmp_path: Path) -> None:
    for name, pod, container in of_example(example).containers():
        if container["name"] in {"worker", "serve", "ui"}:
            place = tmp_path / name.replace("/", "-")
            place.mkdir()
            settings = settings_of(of_example(example), name, pod, container, place)
            before = 5 if container["name"] == "serve" else 0
            needed = before + settings.worker.shutdown_seconds + CLOSE_SECONDS
            assert pod["terminationGracePeriodSeconds"] > needed, name


def test_no_secret_is_in_what_is_sent(example: Path) -> None:
    rendered = of_example(example)
    assert rendered.of_kind("Secret") == {}
    for name, _, container in rendered.containers():
        for variable in container["env"]:
            if SECRET_NAME.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], f"{name}: {variable['name']}"
    for _, _, pod in rendered.pods():
        for volume in pod["volumes"]:
            # Keys of redaction that others may read are refused.
            assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


def test_models_are_prepared_where_they_are_loaded(example: Path) -> None:
    for name, deployment in of_example(example).of_kind("Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        prepares = [container["args"] for container in pod.get("initContainers", ())]
        alone = {"aggregate", "combine", "redact", "entities", "ui"}
        assert prepares == ([] if name in alone else [["models", "prepare"]]), name
        cached = "/var/lib/el4ner/cache" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert cached == (name not in alone - {"combine"}), name


def test_nothing_is_written_that_has_no_value(example: Path) -> None:
    # What Go's templates write for a key that is missing. The API's schemas take it for a name.
    for manifest in of_example(example).manifests:
        written = json.dumps(manifest)
        assert not re.search(r"<nil>|<no value>|<invalid|%!", written), manifest["metadata"]["name"]


def test_names_are_few_enough_letters(example: Path) -> None:
    for manifest in of_example(example).manifests:
        assert len(manifest["metadata"]["name"]) <= 63


# --- scaling and disruption ------------------------------------------------------------------------------------------


def test_lag_is_that_of_the_topics_and_groups_that_the_workers_read(example: Path, tmp_path: Path) -> None:
    scaled = of_example(example).of_kind("ScaledObject")
    for name, roles, settings in workers_of(of_example(example), tmp_path):
        if name not in scaled:
            continue
        expected = set()
        for role in roles:
            rights = bindings(settings.kafka, roles=[Role(role)])
            read = {acl.name for acl in rights if acl.resource is Resource.TOPIC and "Read" in acl.operations}
            grouped = {name for name in read if not name.endswith(("pool-examples", "-changelog"))}
            expected |= {(topic, app_id(settings.kafka, members.group_of(role, settings))) for topic in grouped}
        spec = scaled[name]["spec"]
        triggers = [trigger["metadata"] for trigger in spec["triggers"]]
        assert {(trigger["topic"], trigger["consumerGroup"]) for trigger in triggers} == expected, name
        assert {trigger["bootstrapServers"] for trigger in triggers} == {settings.kafka.bootstrap_servers}
        assert {"tls" in trigger for trigger in triggers} == {settings.kafka.uses_tls}
        assert {"sasl" in trigger for trigger in triggers} == {settings.kafka.uses_sasl}
        assert spec["maxReplicaCount"] <= settings.kafka.partitions
        deployment = of_example(example).of_kind("Deployment")[name]
        assert "replicas" not in deployment["spec"], "two would decide"
        assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert all(name in of_example(example).of_kind("Deployment") for name in scaled)


def test_every_component_may_be_disrupted_one_pod_at_a_time(example: Path) -> None:
    budgets = of_example(example).of_kind("PodDisruptionBudget")
    deployments = of_example(example).of_kind("Deployment")
    assert set(budgets) == set(deployments)
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"] == deployments[name]["spec"]["selector"]["matchLabels"]
        strategy = deployments[name]["spec"]["strategy"]["rollingUpdate"]
        # Clients wait for the service; nobody waits for a worker, whose partition or GPU a further one would lack.
        further = int(name == "serve")
        assert strategy == {"maxSurge": further, "maxUnavailable": 1 - further}


# --- topics ----------------------------------------------------------------------------------------------------------


def test_topics_are_made_before_workers_with_all_that_this_takes(example: Path, tmp_path: Path) -> None:
    rendered = of_example(example)
    job = rendered.of_kind("Job")["topics"]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["topics", "create"]
    weights = {}
    for manifest in rendered.manifests:
        hooks = manifest["metadata"].get("annotations", {})
        if "pre-install" in hooks.get("helm.sh/hook", ""):
            assert hooks["helm.sh/hook"] == "pre-install,pre-upgrade"
            weights[manifest["kind"]] = int(hooks["helm.sh/hook-weight"])
    assert weights == {"ConfigMap": -10, "NetworkPolicy": -10, "Job": 0}
    assert rendered.toml("topics").strip() in rendered.toml("config")
    (container,) = [each for name, _, each in rendered.containers() if name.startswith("topics/")]
    pod = job["spec"]["template"]["spec"]
    made = settings_of(rendered, "topics/", pod, container, tmp_path)
    names = {planned.name for planned in plan(made.kafka, redaction_topics(made.redaction))}
    assert ("redact" in rendered.of_kind("Deployment")) == (topic_name(made.kafka, Topic.REDACTED_DOCUMENTS) in names)


def test_another_configuration_makes_other_pods(example: Path) -> None:
    def checksums(rendered: Rendered) -> set[str]:
        pods = [deployment["spec"]["template"] for deployment in rendered.of_kind("Deployment").values()]
        return {pod["metadata"]["annotations"]["checksum/config"] for pod in pods}

    (before,) = checksums(of_example(example))
    (after,) = checksums(Rendered.of(example, values={"config": {"worker": {"batch_documents": 3}}}))
    assert before != after


def test_helm_lint_is_content(example: Path) -> None:
    done = helm("lint", "--strict", str(EXAMPLES[0].parents[1]), "--values", str(example))
    assert done.returncode == 0, done.stdout + done.stderr
