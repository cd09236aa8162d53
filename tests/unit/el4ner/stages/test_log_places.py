"""In log lines the type of a word depends on its place: one member's states of the place speak too."""

from __future__ import annotations

from pathlib import Path

import pytest

from el4ner.engines.base import Prompt, States
from el4ner.pools import Pool, PoolSentence
from el4ner.types import Document, Span
from tests.support.doubles import ScriptedStateEngine, drawn
from tests.unit.el4ner.stages.test_pool_evidence import assembled, sources

TYPES = {"user": "an account", "process": "a program"}
NAMES = ("adm1n", "backup7", "cr0n", "dev2", "ftp9", "git3", "http5", "irc8", "jobs4", "kv6", "ldap1", "mail2")


def line(user: str, process: str) -> PoolSentence:
    text = f"login of {user} refused by {process} at once"
    return PoolSentence(
        text,
        tuple(
            (Span(text.index(word), text.index(word) + len(word), word), label)
            for word, label in ((user, "user"), (process, "process"))
        ),
    )


LINES = tuple(line(name, NAMES[(number + 5) % len(NAMES)]) for number, name in enumerate(NAMES))
DOCUMENT = Document("d", "login of zed9 refused by web3 at once. login of web3 refused by zed9 at once.")


def reads(name: str) -> ScriptedStateEngine:
    """Its states of a name tell nothing. Those of a word tell which word it is."""

    def show(prompt: Prompt, tail: str) -> States:
        states = 0.1 * drawn(prompt.user, tail)
        if not tail.startswith("- "):
            states[:, {"of": 0, "by": 1}.get(tail.split(" ")[-1], 2)] += 2.0
        return states

    return ScriptedStateEngine(name, show=show)


@pytest.mark.parametrize(("kind", "in_place"), [("log", True), ("prose", False)])
def test_the_place_of_a_word_tells_its_type_in_log_lines(tmp_path: Path, kind: str, in_place: bool) -> None:
    hosted = Pool("p", TYPES, LINES, text_kind=kind)  # type: ignore[arg-type]
    made = assembled(tmp_path, reads("a"), reads("b"), proposer="b", hosted=hosted)
    assert ("b in place" in sources(made)) is in_place
    if in_place:
        (result,) = made.classify(made.extract([DOCUMENT]))
        typed = [span for item in result.sentences for span in item.typed if span.type != "none"]
        assert [(span.candidate.span.text, span.type) for span in typed] == [
            ("zed9", "user"),
            ("web3", "process"),
            ("web3", "user"),
            ("zed9", "process"),
        ]
        assert all(set(span.votes) <= {"a", "b"} for span in typed), "it is one more judge of the same voter"


def test_nobody_reads_places_where_no_member_reads_words(tmp_path: Path) -> None:
    made = assembled(tmp_path, reads("a"), hosted=Pool("p", TYPES, LINES, text_kind="log"))
    assert sources(made) == ["a"]


def test_what_was_read_of_places_is_read_once(tmp_path: Path) -> None:
    hosted = Pool("p", TYPES, LINES, text_kind="log")
    first = assembled(tmp_path, reads("b"), proposer="b", hosted=hosted)
    engine = reads("b")
    second = assembled(tmp_path, engine, proposer="b", hosted=hosted)
    assert engine.shown == []
    assert second.manifest("classify", "p") == first.manifest("classify", "p")
