"""``el4ner calibrate``: what it says, writes, takes from its file and refuses."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from el4ner.engines.base import StateRequest, StateResult
from el4ner.types import Usage
from tests.support.doubles import ScriptedEngine
from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")

LETTERS = "bcdfghklmnprstvw"


class SeesEndings(ScriptedEngine):
    """Shows states that depend on how a span ends, and a little on the rest of it."""

    hidden_size = 8

    @property
    def states_fingerprint(self) -> str:
        return f"{self.name}-states"

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        return [
            StateResult(np.stack([np.stack([self._state(tail)] * 2) for tail in request.tails]), Usage(5, 0, 0))
            for request in requests
        ]

    def _state(self, tail: str) -> np.ndarray:
        noise = np.frombuffer(hashlib.sha256(f"{self.name} {tail}".encode()).digest()[:8], np.uint8) / 2550
        noise[: len(self.endings)] += [tail.endswith(ending) for ending in self.endings]
        return noise.astype(np.float32)

    endings = ("son", "ville")


Loaded = dict[str, ScriptedEngine]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Members by name; who is not in it when it is loaded sees endings and says yes to everything."""
    made: Loaded = {}
    monkeypatch.setattr(
        "el4ner.loader.load_engine", lambda name, settings, **_: made.setdefault(name, SeesEndings(name))
    )
    return made


def pool(folder: Path, sentences: int = 40, **types: str) -> Path:
    """Persons end in -son and places in -ville; in every second sentence a ship is called as a person would be."""
    folder.mkdir(exist_ok=True)
    described = {"person": "a human being", "place": "a town", **types}
    (folder / "pool.toml").write_text(
        f'name = "{folder.name}"\n[types]\n' + "".join(f'{name} = "{said}"\n' for name, said in described.items())
    )
    lines = []
    for number in range(sentences):
        person = f"{LETTERS[number % 16].upper()}a{LETTERS[number // 16]}eson"
        place = f"{LETTERS[number // 16].upper()}o{LETTERS[number % 16]}aville"
        text = f"{person} {'sank off' if number % 2 else 'moved to'} {place}."
        spans = [(place, "place")] if number % 2 else [(person, "person"), (place, "place")]
        marked = [{"start": text.index(s), "end": text.index(s) + len(s), "type": label} for s, label in spans]
        lines.append(json.dumps({"text": text, "spans": marked}))
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = "") -> Path:
        path = tmp_path / "el4ner.toml"
        path.write_text(f'[retrieval]\nkind = "random"\n[ensemble]\npreset = "instant"\n{text}')
        return path

    return write


def figures(runner: CliRunner, *arguments: object) -> dict[str, Any]:
    result = runner.invoke(app, ["calibrate", *map(str, arguments), "--json", "-"])
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["pools"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("adaptive", "said"), [("true", "is settled there"), ("false", "every member is asked about every span")]
)
def test_what_is_printed_reads_well_in_80_columns(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path], adaptive: str, said: str
) -> None:
    config = file(f"[method]\nadaptive = {adaptive}\n")
    arguments = ["calibrate", str(pool(tmp_path / "ships")), "--config", str(config), "--validation"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for words in (
        "ships: 40 sentences",
        "proposed spans; estimated now",
        "leave-one-out: F1 0.",
        "no promise for other text",
        "1. instant-",
        "2. instant-",
        "neighbours middle",
        "prototypes last",
        "threshold",
        "settled from",
        said,
        "fingerprint ",
        "validation of ships by instant-b, by leave-one-out on the pool",
        "off 0.",
        "soft 0.",
        "hard 0.",
        "0.5 is chance",
        "s a sentence for the verifier",
        '[method] validation = "off"',
    ):
        assert words in shown
    lines = [line for line in result.stdout.splitlines() if not line.startswith("file ")]
    assert max(map(len, lines)) <= 80


def test_what_is_stored_is_used_until_the_pool_changes(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    config, folder = file(), pool(tmp_path / "ships")
    first = figures(runner, folder, "--config", config)
    second = figures(runner, folder, "--config", config)
    assert (first.pop("from_file"), second.pop("from_file")) == (False, True)
    assert first == second
    assert Path(first["file"]).is_file()
    assert "what is stored is current" in runner.invoke(app, ["calibrate", str(folder), "--config", str(config)]).stdout
    anew = figures(runner, folder, "--config", config, "--fresh")
    assert (anew["from_file"], anew["fingerprint"]) == (False, first["fingerprint"])
    # The members read the types' descriptions too.
    changed = figures(runner, pool(folder, person="somebody with a name"), "--config", config)
    assert (changed["from_file"], changed["key"] != first["key"]) == (False, True)


def test_the_json_is_the_calibration_with_what_its_weights_are_of(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    folder, out = pool(tmp_path / "ships"), tmp_path / "out.json"
    found = figures(runner, folder, "--config", file())
    promised = (
        """pool pool_fingerprint file fingerprint from_file key steps figures sentences spans features validation"""
    )
    assert set(promised.split()) <= found.keys()
    assert (found["pool"], found["sentences"], found["validation"]) == ("ships", 40, None)
    assert 0 < found["figures"]["f1"] < 1
    assert len(found["features"]) == len(found["steps"][-1]["combination"]["weights"]) == 16
    assert found["features"][0] == {"source": found["steps"][0]["source"], "kind": "neighbours middle"}
    stored = json.loads(Path(found["file"]).read_text())
    assert {source["name"] for source in stored.pop("sources")} == {step["source"] for step in found["steps"]}
    assert stored == {key: found[key] for key in stored}
    arguments = ["calibrate", str(folder), "--config", str(tmp_path / "el4ner.toml"), "--json", str(out)]
    assert f"calibration written to {out}" in runner.invoke(app, arguments).stderr.replace("\n", "")
    assert json.loads(out.read_text())["pools"][0]["key"] == found["key"]


def test_the_figures_on_top_are_of_what_the_settings_do(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    """Settled early, or all members asked about everything."""
    arguments = [str(pool(tmp_path / "ships")), "--config", str(file("[method]\nadaptive = true\n"))]
    found = figures(runner, *arguments)
    # No pool gives both figures for sure: the file does.
    stored = json.loads(Path(found["file"]).read_text())
    stored["figures"]["f1"], stored["steps"][-1]["figures"]["f1"] = 0.111, 0.222
    Path(found["file"]).write_text(json.dumps(stored))
    assert "leave-one-out: F1 0.111" in runner.invoke(app, ["calibrate", *arguments]).stdout
    file("[method]\nadaptive = false\n")
    assert "leave-one-out: F1 0.222" in runner.invoke(app, ["calibrate", *arguments]).stdout


def test_all_configured_pools_unless_some_are_named(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    paths = {name: pool(tmp_path / name, 12) for name in ("one", "two")}
    config = file(
        '[pools]\ndefault = "one"\n[pools.paths]\n' + "".join(f'{name} = "{path}"\n' for name, path in paths.items())
    )
    every = json.loads(runner.invoke(app, ["calibrate", "--config", str(config), "--json", "-"]).stdout)["pools"]
    assert [found["pool"] for found in every] == ["one", "two"]
    assert figures(runner, "two", "--config", config)["pool"] == "two"
    (tmp_path / "elsewhere").mkdir()
    other = pool(tmp_path / "elsewhere" / "one", 12)
    assert figures(runner, other, "--config", config)["pool"] == "one"
    clash = runner.invoke(app, ["calibrate", "one", str(other), "--config", str(config)])
    assert clash.exit_code == 2
    assert "would both be called 'one'" in clash.stderr


def test_a_pool_that_is_too_small_counts_all_evidence_the_same(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    arguments = ["calibrate", str(pool(tmp_path / "few", 9)), "--config", str(file()), "--validation"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "all kinds of evidence count the same" in result.stdout
    assert "takes 10 sentences" in result.stdout
    assert "too little to choose a kind of validation by" in result.stderr
    assert "F1" not in result.stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('mode = "paper"', "method.mode is paper"),
        ("evidence = []", "method.evidence is empty"),
        ('weights = "even"', "method.weights is even"),
    ],
)
def test_settings_without_weights_are_refused_before_a_model_is_loaded(
    runner: CliRunner, engines: Loaded, file: Callable[..., Path], setting: str, said: str
) -> None:
    result = runner.invoke(app, ["calibrate", "--config", str(file(f"[method]\n{setting}\n"))])
    assert (result.exit_code, result.stdout, engines) == (2, "", {})
    assert result.stderr.startswith("error: there is nothing to calibrate: ")
    assert said in result.stderr


def test_an_ensemble_without_states_has_nothing_to_weigh(runner: CliRunner) -> None:
    result = runner.invoke(app, ["calibrate", "--ensemble", "instant"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no member of the ensemble (instant-a, instant-b) shows its hidden states" in result.stderr
    assert "in_context" in result.stderr


def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    runner: CliRunner, engines: Loaded, tmp_path: Path
) -> None:
    result = runner.invoke(app, ["calibrate", "--json", str(tmp_path / "no" / "out.json")])
    assert (result.exit_code, engines) == (2, {})
    assert "cannot be written" in result.stderr


def test_a_verifier_that_knows_better_is_worth_its_prompt(
    runner: CliRunner, engines: Loaded, tmp_path: Path, file: Callable[..., Path]
) -> None:
    folder = pool(tmp_path / "ships")
    sentences = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    people = {s["text"].split()[0] for s in sentences if len(s["spans"]) == 2}

    def prefer(tail: str, candidates: tuple[str, ...]) -> str:
        right = "place?" in tail or any(person in tail for person in people)
        return candidates[0] if right else candidates[1]

    verifier = engines["instant-b"] = SeesEndings("instant-b", prefer=prefer)
    found = figures(runner, folder, "--config", file(), "--validation")["validation"]
    assert (found["verifier"], found["sentences"], found["gold"]) == ("instant-b", 40, 60)
    assert found["chosen"] == "hard"
    assert found["hard"]["f1"] > found["off"]["f1"] + 0.05
    assert found["auc"] == 1.0
    assert found["seconds_per_sentence"] > 0
    texts = [sentence["text"] for sentence in sentences]
    assert len(verifier.scored) == 40
    for request in verifier.scored:
        own = request.prompt.user.rpartition("Text: ")[2]
        assert own in texts
        assert request.prompt.user.count(own) == 1, "no sentence is shown with its own labels"
