"""The labelled log lines: as the generator makes them, labelled by the rules of the shipped pool, in two halves."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from el4ner.pools import load_pool
from el4ner.pools.check import check_pool
from el4ner.text.log_patterns import is_ipv6
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

import log_lines

DATA = ROOT / "bench" / "data" / "logs"
# What nearly every line of a format that the pool does not have begins with or holds.
MARKS = ("CEF:", "LEEF:", "%ASA-", "<Event>", '"kubernetes"', "HIER_", "R=local_user", "imap-login", "chan_sip", "[**]")


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return read("lines.jsonl")


def test_the_lines_are_those_of_the_generator(lines: list[dict[str, Any]]) -> None:
    assert list(log_lines.lines(4, 0)) == lines


def test_there_are_enough_lines_formats_and_unseen_formats(lines: list[dict[str, Any]]) -> None:
    seen = {line["format"]: line["seen"] for line in lines}
    assert len(lines) >= 600
    assert len(seen) >= 25
    assert sum(not known for known in seen.values()) * 2 >= len(seen)
    per_half = Counter((line["format"], line["half"]) for line in lines)
    assert min(per_half[name, half] for name in seen for half in ("dev", "test")) >= 12


def test_halves_share_neither_phrasings_nor_names(lines: list[dict[str, Any]]) -> None:
    phrasings, accounts = defaultdict(set), defaultdict(set)
    for line in lines:
        phrasings[line["half"]].add(line["phrasing"])
        accounts[line["half"]].update(span["text"] for span in line["spans"] if span["type"] == "user")
    assert not phrasings["dev"] & phrasings["test"]
    assert not accounts["dev"] & accounts["test"]


@pytest.mark.parametrize(("file", "fewest"), [("lines.jsonl", 30), ("others.jsonl", 10)])
def test_labels_have_the_pool_s_types_and_no_mistakes(tmp_path: Path, file: str, fewest: int) -> None:
    (tmp_path / "pool.toml").write_bytes((ROOT / "el4ner" / "pools" / "logs" / "pool.toml").read_bytes())
    records = [json.dumps({"text": line["text"], "spans": line["spans"]}) + "\n" for line in read(file)]
    (tmp_path / "sentences.jsonl").write_text("".join(records), encoding="utf-8")
    report = check_pool(load_pool(tmp_path))
    assert report.errors == 0
    assert all(count >= fewest for count in report.mentions.values())
    assert {finding.message.rpartition("begins or ends")[1] for finding in report.findings} == {""}


def test_each_label_follows_its_type_s_rule(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        for span in line["spans"]:
            text, kind = span["text"], span["type"]
            before = line["text"][: span["start"]]
            assert line["text"][span["start"] : span["end"]] == text
            if kind == "ip-address":
                assert is_ipv6(text) or all(0 <= int(byte) <= 255 for byte in text.split("."))
            elif kind in ("host", "user", "process"):
                assert "/" not in text or text.startswith("postfix/"), text
                assert not before.endswith("://"), "a name inside a URL is no host"
            elif kind == "file-path":
                assert "/" in text or "\\" in text
            elif kind == "url":
                assert text.startswith(("/", "http"))
            elif text.isdigit() and len(text) == 3 and "HTTP/" in before:
                assert int(text) >= 400, "only failures are error codes"


def test_formats_that_count_as_unseen_are_not_in_the_pool(lines: list[dict[str, Any]]) -> None:
    pool = load_pool("shipped:logs")
    texts = {sentence.text for sentence in pool.sentences}
    assert not [text for text in texts if any(mark in text for mark in MARKS)]
    assert not texts & {line["text"] for line in lines}


def test_other_authors_wrote_other_lines(lines: list[dict[str, Any]]) -> None:
    others = read("others.jsonl")
    known = {line["text"] for line in lines} | {one.text for one in load_pool("shipped:logs").sentences}
    assert not known & {line["text"] for line in others}
    assert len({line["format"] for line in others}) >= 100
