"""The arrow that keeps the project simple: the method knows nothing of the stream."""

import ast
import subprocess
import sys
from pathlib import Path

import el4ner

STREAM = {"kafka", "aiokafka", "faust", "mode", "redis", "workers"}


def test_el4ner_imports_no_kafka_faust_or_redis() -> None:
    """In the source: also inside functions."""
    for path in Path(el4ner.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                names = [node.module]
            for name in names:
                assert name.split(".")[0] not in STREAM, f"{path}:{node.lineno} imports {name}"


def test_loading_the_tagger_loads_no_stream() -> None:
    """At run time: also through other packages."""
    code = "import sys, el4ner.tagger; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not STREAM & set(loaded)


def test_the_public_api_is_what_all_says() -> None:
    assert set(el4ner.__all__) <= set(dir(el4ner))
    assert el4ner.__all__ == sorted(el4ner.__all__)
