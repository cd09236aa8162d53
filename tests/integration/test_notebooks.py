"""docs/notebooks, executed as Jupyter does, with the packaged models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAMS = Path(sys.executable).parent


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_of_a_pool_runs_to_its_end(tmp_path: Path) -> None:
    notebook = tmp_path / "pool.ipynb"
    shutil.copy(ROOT / "docs" / "notebooks" / "pool.ipynb", notebook)
    environ = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "JUPYTER_PLATFORM_DIRS": "1"}
    environ.pop("EL4NER_CONFIG", None)
    command = [str(PROGRAMS / "jupyter-execute"), "--inplace", notebook.name]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "".join("".join(output.get("text") or output["data"]["text/plain"]) for output in outputs)
    for text in ("Ada Lovelace     person", "London           location", "Ada\tB-person", "annotation.conf"):
        assert text in shown


def test_notebooks_are_kept_without_outputs() -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not [cell for cell in cells if cell.get("outputs")], f"{path.name}: clear its outputs"
