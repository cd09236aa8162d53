"""``el4ner eval``: what it prints, writes and refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")

SENTENCES = "Ada\tB-person\nslept\tO\nin\tO\nRome\tB-place\n\nRome\tB-place\nburned\tO\n\nNobody\tO\nslept\tO\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"{split}.conll").write_text(SENTENCES)
    return folder


def invoke(*arguments: object) -> Any:
    # Usage errors stand in a box as wide as the terminal: a path must not be broken in it, wherever the folder is.
    return CliRunner(env={"COLUMNS": "500"}).invoke(app, ["eval", *map(str, arguments), "--ensemble", "instant"])


def figures(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json", "-")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_json_has_the_promised_keys(data: Path) -> None:
    found = figures(data)
    promised = """precision recall f1 span_f1 candidate_recall sentences seconds_per_sentence seconds_by_stage
        tokens_per_sentence cached_tokens_per_sentence new_tokens_per_sentence per_type settings fingerprints seed limit
        f1_ci precision_ci recall_ci ece right_at_0_8 losses proposers members cached_sentences comparison"""
    assert set(promised.split()) <= found.keys()
    assert found["f1_ci"][0] <= found["f1"] <= found["f1_ci"][1]
    assert {"precision", "recall", "f1", "support", "f1_ci"} <= found["per_type"]["person"].keys()
    assert found["losses"]["gold"] == 3
    assert found["members"].keys() == {"instant-a", "instant-b"}
    assert found["comparison"] is None


def test_a_second_run_comes_from_the_cache_and_says_so(data: Path) -> None:
    first = figures(data)
    second = figures(data)
    assert (first.pop("cached_sentences"), second.pop("cached_sentences")) == (0, 3)
    assert first == second
    assert "3 sentences, 3 of them from the cache" in invoke(data).stdout
    assert figures(data, "--fresh")["cached_sentences"] == 0
    assert figures(data, "--mode", "paper")["cached_sentences"] == 0


def test_what_is_printed_reads_well_in_80_columns(data: Path) -> None:
    result = invoke(data, "--compare", _records(data, "--mode", "paper"))
    assert result.exit_code == 0, result.stderr
    for words in ("95 % interval", "of 3 gold entities:", "calibration error", "tokens a sentence", "p = "):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80 + len(str(data)), "but for the file's own name"


def test_a_run_is_compared_with_another_one(data: Path) -> None:
    other = _records(data, "--mode", "paper")
    found = figures(data, "--compare", other)["comparison"]
    assert found["other"] == str(other)
    assert found["sentences"] == 3
    assert 0 < found["p_value"] <= 1
    assert found["difference_ci"][0] <= found["difference"] <= found["difference_ci"][1]
    itself = figures(data, "--compare", _records(data))["comparison"]
    assert (itself["difference"], itself["p_value"]) == (0.0, 1.0)


def test_a_report_and_records_are_written(data: Path, tmp_path: Path) -> None:
    page, lines = tmp_path / "run.html", tmp_path / "run.jsonl"
    result = invoke(data, "--report", page, "--records", lines, "--json", "-")
    assert result.exit_code == 0
    json.loads(result.stdout)
    assert "report written to" in result.stderr
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [json.loads(line)["text"] for line in lines.read_text().splitlines()] == [
        "Ada slept in Rome",
        "Rome burned",
        "Nobody slept",
    ]


@pytest.mark.parametrize("option", ["--report", "--records", "--json"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(data: Path, tmp_path: Path, option: str) -> None:
    result = invoke(data, option, tmp_path / "no" / "file")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_records_that_do_not_fit_are_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    other = _records(data, "--limit", "2")
    for file, said in (
        (other, "different sentences (3 here, 2 there, 2 in both)"),
        (tmp_path / "none.jsonl", "cannot be read: No such file"),
        (data / "train.conll", "train.conll:1: is no evaluation record"),
    ):
        result = invoke(data, "--compare", file, "--mode", "paper")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {file}")
        assert said in result.stderr
    assert len(list((tmp_path / "cache" / "evaluations").iterdir())) == 1, "of the run that wrote the records"


def _records(data: Path, *arguments: str) -> Path:
    file = data.parent / f"other{len(list(data.parent.glob('other*')))}.jsonl"
    assert invoke(data, "--records", file, *arguments).exit_code == 0
    return file


def test_sentences_that_are_wrong_are_left_out_if_asked_for(data: Path) -> None:
    for split in ("train", "test"):
        with (data / f"{split}.conll").open("a", encoding="utf-8") as file:
            file.write("\n\u00a0\tO\nBo\tB-person\n")
    refused = invoke(data)
    assert refused.exit_code == 2
    assert "train.conll:12: the token has nothing to see: it is U+00A0" in refused.stderr
    result = invoke(data, "--on-error", "skip", "--json", "-")
    assert json.loads(result.stdout)["sentences"] == 3
    assert "split test: 1 sentences were left out, the first at" in result.stderr


def test_a_learning_curve_is_shown_in_80_columns_and_written(data: Path, tmp_path: Path) -> None:
    page, picture, numbers = tmp_path / "curve.html", tmp_path / "curve.svg", tmp_path / "curve.json"
    result = invoke(data, "--pool-sizes", "1,2,all", "--pool-seeds", "2", "--report", page, "--json", numbers)
    assert result.exit_code == 0, result.stderr
    for words in ("3 sentences, 3 entities", "95 % interval", "worst–best", "of 2", "bootstrap intervals"):
        assert words in result.stdout
    assert re.search(r"^ +all +0\.\d{3} ", result.stdout, re.MULTILINE)
    assert max(map(len, result.stdout.splitlines())) <= 80
    figures = json.loads(numbers.read_bytes())
    assert [(point["size"], len(point["seeds"])) for point in figures["points"]] == [(1, 2), (2, 2), (3, 1)]
    assert (figures["pool_seeds"], figures["split"]) == (2, "test")
    assert "report written to" in result.stderr
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    again = invoke(data, "--pool-sizes", "1,2,all", "--pool-seeds", "2", "--report", picture, "--json", "-")
    resumed = json.loads(again.stdout)
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert {each["cached_sentences"] for point in resumed["points"] for each in point["seeds"]} == {3}
    assert [point["f1"] for point in resumed["points"]] == [point["f1"] for point in figures["points"]]


def test_a_learning_curves_sentences_are_no_other_evaluations(data: Path) -> None:
    """Most of what they cost was paid for by another pool."""
    assert invoke(data, "--pool-sizes", "all").exit_code == 0
    assert figures(data)["cached_sentences"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pool-sizes", "0,1"), "Invalid value for --pool-sizes: a pool of 0 sentences shows nothing"),
        (("--pool-sizes", "2,1"), "Invalid value for --pool-sizes: '2,1': sizes ascend"),
        (("--pool-sizes", "few"), "Invalid value for --pool-sizes: 'few' is no size of a pool"),
        (("--pool-sizes", "2", "--records", "x.jsonl"), "Invalid value for --records: is for one run"),
        (("--pool-sizes", "2", "--compare", "x.jsonl"), "Invalid value for --compare: is for one run"),
        (("--pool-sizes", "2", "--pool-seeds", "0"), "Invalid value for '--pool-seeds'"),
        (("--pool-sizes", "2,5,all"), "error: the train split has 3 sentences, fewer than 5: leave that out"),
    ],
)
def test_a_learning_curve_that_cannot_be_is_refused_before_any_work(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = invoke(data, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "cache").exists()
