"""The types of a template are what several of its lines agree on, and are put right when later lines say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.repeats import ClassifyCarry, StageMemory
from el4ner.repeats.entries import FIRST_CHECK, NEXT_CHECK
from el4ner.text.template_miner import TemplateMiner
from el4ner.types import Sentence, SentenceCandidates, SentenceTypes, Span, SpanCandidate, TypedSpan, Usage

LINES, MOST = ClassifyCarry.lines, ClassifyCarry.most


class Types:
    """A stage that types the account of `login of ACCOUNT at t-N` by ``says``, or else as ``usually``; counts lines."""

    def __init__(self, says: Mapping[str, tuple[str, float]], usually: tuple[str, float] = ("user", 0.9)) -> None:
        self.says = says
        self.usually = usually
        self.asked = 0
        self.memory = StageMemory(ClassifyCarry(), 1000, TemplateMiner(memory=1000))
        self.lines = 0

    def ask(self, items: list[SentenceCandidates]) -> tuple[list[SentenceTypes], Usage]:
        self.asked += len(items)
        return [self._typed(item) for item in items], Usage()

    def _typed(self, item: SentenceCandidates) -> SentenceTypes:
        (candidate,) = item.candidates
        label, confidence = self.says.get(candidate.span.text, self.usually)
        return SentenceTypes(item.sentence, (), (TypedSpan(candidate, label, confidence, {"a": label}),))

    def tag(self, accounts: Sequence[str]) -> list[TypedSpan]:
        """The lines with these accounts, in one batch; a number in each makes every text another one."""
        items = []
        for account in accounts:
            self.lines += 1
            line = f"login of {account} at t-{self.lines}"
            span = Span(9, 9 + len(account), account)
            items.append(SentenceCandidates(Sentence(0, len(line), line), (), (SpanCandidate(span, ("chunks",)),)))
        answers = self.memory.answer(items, self.ask).answers
        assert [answer.typed[0].candidate.span.text for answer in answers] == list(accounts)
        return [answer.typed[0] for answer in answers]

    def types(self, accounts: Sequence[str]) -> list[str]:
        return [typed.type for typed in self.tag(accounts)]


def learnt(stage: Types) -> Types:
    """The stage, after the place of the account has become a field that was asked about as little as possible."""
    for account in ("ada", "bob", "eve"):
        stage.tag([account])
    stage.asked = 0
    return stage


def test_after_three_lines_that_agree_nothing_is_asked() -> None:
    stage = learnt(Types({}))
    assert stage.types(["kim"] * (LINES + 20)) == ["user"] * (LINES + 20)
    assert stage.asked == LINES


def test_a_name_that_looks_like_something_else_takes_the_type_of_its_place() -> None:
    stage = learnt(Types({"mysql": ("process", 0.9), "web": ("host", 0.6)}))
    assert stage.types(["mysql", "root", "web", "admin", "test1", "kim", "mysql"]) == ["user"] * 7
    assert stage.asked == MOST


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_a_template_whose_first_lines_are_all_odd_is_put_right(batch: int) -> None:
    stage = learnt(Types({"mysql": ("process", 0.9)}))
    first = stage.tag(["mysql"] * LINES)
    assert [typed.type for typed in first] == ["process"] * LINES
    types: list[str] = []
    while len(types) < 2 * FIRST_CHECK:
        types += stage.types(["kim"] * batch)
    right = types.index("user")
    assert right <= FIRST_CHECK + LINES
    assert set(types[right + batch :]) == {"user"}
    assert stage.types(["mysql"]) == ["user"]
    assert stage.asked <= 2 * LINES + 1 + 1


def test_a_text_that_was_answered_is_put_right_with_its_template() -> None:
    stage = learnt(Types({"mysql": ("process", 0.9)}))
    stage.tag(["mysql"] * LINES)
    stage.lines -= 1
    assert stage.types(["mysql"]) == ["process"], "the same text again"
    stage.tag(["kim"] * 2 * FIRST_CHECK)
    stage.lines = 3
    asked = stage.asked
    assert stage.types(["mysql"]) == ["user"]
    assert stage.asked == asked


def test_confidence_is_the_mean_over_the_lines_and_those_that_chose_otherwise_count_nothing() -> None:
    stage = learnt(Types({"mysql": ("process", 0.9)}, usually=("user", 0.6)))
    (typed,) = {(typed.type, typed.confidence) for typed in stage.tag(["mysql", "kim", "kim", "kim", "kim", "kim"])}
    assert typed == ("user", pytest.approx(5 * 0.6 / MOST))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["kim", "mysql", "root", "web"]), max_size=150), st.integers(1, 50))
def test_what_is_asked_grows_with_the_logarithm_of_the_lines(accounts: list[str], batch: int) -> None:
    stage, twin = (learnt(Types({"mysql": ("process", 0.9), "web": ("none", 0.5)})) for _ in range(2))
    batches = [accounts[first : first + batch] for first in range(0, len(accounts), batch)]
    assert [stage.types(each) for each in batches] == [twin.types(each) for each in batches]
    checks = sum(len(accounts) >= FIRST_CHECK * NEXT_CHECK**power for power in range(4))
    assert stage.asked <= MOST + checks * (1 + LINES)
