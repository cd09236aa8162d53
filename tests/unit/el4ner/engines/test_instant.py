from __future__ import annotations

import pytest

from el4ner.engines.base import GenerateRequest, Prompt
from el4ner.engines.instant import InstantEngine
from tests.support.engine_conformance import EngineConformance, closes_for_good, logprobs, score_request


class TestInstantEngine(EngineConformance):
    caches = False
    may_generate_nothing = True

    @pytest.fixture
    def engine(self) -> InstantEngine:
        return InstantEngine("instant")


class TestInstantEngineWithReplies(EngineConformance):
    caches = False

    @pytest.fixture
    def engine(self) -> InstantEngine:
        return InstantEngine("instant", reply=lambda prompt: f"{prompt.user[:8]} and Macron, Paris")


def test_two_members_disagree() -> None:
    (one,) = InstantEngine("a").score([score_request("Paris")])
    (other,) = InstantEngine("b").score([score_request("Paris")])
    assert logprobs(one) != logprobs(other)
    assert InstantEngine("a").fingerprint != InstantEngine("b").fingerprint


def test_the_default_answer_is_nothing() -> None:
    (result,) = InstantEngine("a").generate([GenerateRequest(Prompt("", "x"), 5)])
    assert (result.text, result.finished) == ("", True)


def test_close() -> None:
    closes_for_good(InstantEngine("a"))
