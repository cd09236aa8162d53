"""What a start loads: the commands that people wait for, in processes of their own."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from el4ner.models.self_checks import CHECK_ALWAYS

HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas", "sympy", "torch._dynamo")
RUN = f"""
import sys
from workers.cli.app import main
sys.argv = ["el4ner", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.__stderr__)
"""


def loaded_by(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """Standard output, and which of the heavy packages the process had imported at its end."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=540,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, set(run.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize(
    "arguments", [("tag", "--help"), ("worker", "--help"), ("pool", "check", "news", "logs"), ("--version",)]
)
def test_what_runs_no_model_loads_no_model_library(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments)[1] == set()


@pytest.mark.models
def test_a_sentence_is_tagged_without_what_no_model_needs(tmp_path: Path) -> None:
    """Most of what transformers imports wherever it is installed, and sentence-transformers where nothing is compared,
    is not loaded. The second time nothing is checked again, and the answer is the same."""
    sentence = "Ada Lovelace met Charles Babbage in London on Tuesday."
    first, loaded = loaded_by("tag", sentence, **{CHECK_ALWAYS: "always"})
    assert loaded == {"torch", "transformers"}
    again, loaded = loaded_by("tag", sentence)
    assert loaded == {"torch", "transformers"}
    assert first == again
    assert "[Ada Lovelace|person]" in first


@pytest.mark.models
def test_in_context_the_embedder_is_loaded_beside_models_that_were_loaded_without_unused_parts(tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"  # each of a pool's sentences is asked about in context when it is first read
    news = (resources.files("el4ner") / "pools" / "news" / "sentences.jsonl").read_text(encoding="utf-8")
    few.write_text("\n".join(news.splitlines()[:12]))
    asked = ("--ensemble", "smollm2", "--pool", str(few), "Ada Lovelace met Charles Babbage.")
    answer, loaded = loaded_by("tag", *asked, EL4NER_METHOD__VALIDATION="soft")
    assert {"sentence_transformers", "transformers", "torch"} <= loaded
    assert "Ada Lovelace" in answer
