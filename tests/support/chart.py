"""The Helm chart: its files, and what helm makes of them where `make chart` has built it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from el4ner.config import STREAM_SECTIONS, Settings, load_settings
from tests.support.paths import ROOT
from workers.config import StreamSettings, load_stream_settings

CHART = ROOT / "docker" / "helm" / "el4ner"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
TOOLS = ROOT / "build" / "chart"
"""Where `make chart` puts helm; git ignores it."""
NO_HELM = "needs helm: make chart builds it"
RELEASE = "tagger"
_SECRET = "0123456789abcdef"


def read_yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values as helm puts files together: tables key by key, anything else as a whole, null takes away."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = laid_over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def helm_program() -> str | None:
    """Where helm is; None: nowhere."""
    built = TOOLS / "helm"
    return str(built) if built.is_file() else shutil.which("helm")


def helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm; ``values`` go in as the last file. Skips the test where helm is not built."""
    program = helm_program()
    if program is None:
        pytest.skip(NO_HELM)
    given = [] if values is None else ["--values", "-"]
    return subprocess.run(
        [program, *arguments, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def template(files: Sequence[Path] = (), values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    named = [argument for file in files for argument in ("--values", str(file))]
    return helm("template", RELEASE, str(CHART), *named, values=values)


class Rendered:
    """What a cluster would be sent."""

    def __init__(self, manifests: Sequence[dict[str, Any]]) -> None:
        self.manifests = manifests

    @classmethod
    def of(cls, *files: Path, values: Mapping[str, Any] | None = None) -> Rendered:
        done = template(files, values)
        assert done.returncode == 0, done.stderr
        return cls([manifest for manifest in yaml.safe_load_all(done.stdout) if manifest])

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """By name, without the release's."""
        found = [manifest for manifest in self.manifests if manifest["kind"] == kind]
        return {manifest["metadata"]["name"].removeprefix(f"{RELEASE}-el4ner-"): manifest for manifest in found}

    def pods(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Name, labels and specification of every pod that there will be, hooks and tests among them."""
        for kind in ("Deployment", "Job"):
            for name, manifest in self.of_kind(kind).items():
                pod = manifest["spec"]["template"]
                yield name, pod["metadata"]["labels"], pod["spec"]
        for name, manifest in self.of_kind("Pod").items():
            yield name, manifest["metadata"]["labels"], manifest["spec"]

    def containers(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """``pod/container``, its pod and itself."""
        for name, _, pod in self.pods():
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield f"{name}/{container['name']}", pod, container

    def toml(self, config_map: str = "config") -> str:
        text: str = self.of_kind("ConfigMap")[config_map]["data"]["el4ner.toml"]
        return text


@cache
def of_example(example: Path) -> Rendered:
    return Rendered.of(example)


def environ_of(pod: Mapping[str, Any], container: Mapping[str, Any], text: str, folder: Path) -> dict[str, str]:
    """A container's variables, with the files that they name below ``folder``."""
    config = folder / "el4ner.toml"
    config.write_text(text, encoding="utf-8")
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    environ = {}
    for variable in container["env"]:
        value = variable.get("value", _SECRET)
        if variable["name"] == "EL4NER_CONFIG":
            assert value in mounted
            value = str(config)
        elif value.startswith("/etc/el4ner/secrets/"):
            assert str(Path(value).parent) in mounted, value
            assert has_file(pod, value), value
            file = folder / value.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_SECRET, encoding="utf-8")
            value = str(file)
        environ[variable["name"]] = value
    return environ


def has_file(pod: Mapping[str, Any], path: str) -> bool:
    """Whether the secret volume that is mounted there has this file, as far as the pod says which files it has."""
    *_, folder, name = path.split("/")
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == f"secret-{folder}"]
    items = volume["secret"].get("items")
    return items is None or name in {item["path"] for item in items}


def settings_of(
    rendered: Rendered, name: str, pod: Mapping[str, Any], container: Mapping[str, Any], folder: Path
) -> StreamSettings:
    """What the container's command reads."""
    config_map = "topics" if name.startswith("topics/") else "config"
    environ = environ_of(pod, container, rendered.toml(config_map), folder)
    return load_stream_settings(environ=environ)


def method_settings_of(
    rendered: Rendered, pod: Mapping[str, Any], container: Mapping[str, Any], folder: Path
) -> Settings:
    """The same for a command that passes the stream's sections over."""
    environ = environ_of(pod, container, rendered.toml(), folder)
    return load_settings(Settings, environ=environ, passed_over=STREAM_SECTIONS)


def workers_of(rendered: Rendered, folder: Path) -> Iterator[tuple[str, list[str], StreamSettings]]:
    """Name, roles and settings of every worker."""
    for name, pod, container in rendered.containers():
        if container["name"] == "worker":
            place = folder / name.replace("/", "-")
            place.mkdir()
            yield name.partition("/")[0], container["args"][1:], settings_of(rendered, name, pod, container, place)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; of expressions it knows ``In``."""
    named = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return named and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", ())
    )
