"""The package as a user gets it: built, and installed without any extra into a fresh environment."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.extras_trial import TRIALS, build, tried

UV = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def test_every_extra_has_a_trial() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tried_extras = {extra for trial in TRIALS for extra in trial.extras.split(",")} - {""}
    assert tried_extras == set(project["optional-dependencies"])


def test_a_trial_is_found_by_its_name() -> None:
    names = [trial.name for trial in TRIALS]
    assert len(names) == len(set(names)), "python -m tools extras NAME runs the last of them alone"


@pytest.mark.slow
@pytest.mark.skipif(not Path(UV).is_file(), reason="no uv, which installs into fresh environments")
def test_without_extras_pools_and_schemas_work(tmp_path: Path) -> None:
    """And neither a library of models nor one of the stream was installed."""
    (base,) = [trial for trial in TRIALS if trial.name == "base"]
    (wheel,) = build(tmp_path / "dist", uv=UV, archive=False)
    lines: list[str] = []
    tried(base, tmp_path / "base", wheel, uv=UV, tell=lines.append)
    assert lines == ["base: works"]
    installed = {
        re.sub(r"-\d.*", "", path.name) for path in (tmp_path / "base" / "venv").glob("lib/*/site-packages/*.dist-info")
    }
    assert "el4ner" in installed
    assert not {"torch", "transformers", "kafka_python", "faust_streaming", "redis"} & installed
