"""What every engine does, whatever runs behind it.

A test module makes it its own with a class and an ``engine`` fixture::

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def engine(self): ...

``tolerance``: how far two log-probabilities of the same thing may be apart (rounding of the number type), relative to
``1 + |logprob|``. ``caches``: a prompt that was just read is found again. ``may_generate_nothing``: answers may be
empty.

An engine that shows its hidden states makes :class:`StateConformance` its own as well. ``state_tolerance``: how far two
readings of the same thing may be apart, relative to their length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from el4ner.engines.base import (
    LAYERS,
    Engine,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreItem,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    States,
)
from el4ner.engines.constraint import SpanLines
from el4ner.errors import EngineError
from el4ner.stages.answers import parse_spans
from el4ner.stages.context import STOP
from el4ner.text.mentions import find_mentions
from el4ner.types import Usage

SYSTEM = "You label names in sentences."
SENTENCES = (
    "Angela Merkel met Emmanuel Macron in Paris on 3 May 2019.",
    "The kernel module nvidia-drm failed to load on host web-17.",
    "Zoë's naïve café served 東京 ramen \U0001f35c — «très bon»!",
    "No names here.",
)
CANDIDATES = (" person", " location", " organisation", " none", " person of interest")


def prompt(sentence: str, answer: str = "") -> Prompt:
    return Prompt(SYSTEM, f"Label the names.\nSentence: {sentence}", answer)


def score_request(sentence: str, *, surfaces: Sequence[str] = ("Paris", "Macron"), answer: str = "") -> ScoreRequest:
    items = tuple(ScoreItem(f'\n"{surface}" is a', CANDIDATES) for surface in surfaces)
    return ScoreRequest(prompt(sentence, answer), items)


ODD_TEXT = (
    "\U0001f469\u200d\U0001f680 Zoe\u0301 \u05e9\u05dc\u05d5\u05dd \u202ba\u202c \u0645\u0631\u062d\u0628\u0627 "
    '"O\'Neil\\n" \u00ab\u6771\u4eac\u00bb 3\u20ac\t\u0928\u092e\u0938\u094d\u0924\u0947\nline\u2028two\x04\x00\x7f '
    "C++ 100%"
)
"""An emoji of several code points, combining marks, two that are written from right to left, quotes, a backslash,
control characters and line breaks."""
WORDLESS = ("", " \n\t ", "... \u2014 \U0001f35c !?")


def span_request(text: str, *, tokens: int = 24, spans: bool = True, stop: tuple[str, ...] = STOP) -> GenerateRequest:
    return GenerateRequest(prompt(text, "-"), tokens, stop, spans_of=text if spans else None)


LONG_TAIL = "\n- the kernel module nvidia-drm on host web-17"
TAILS = (
    "\n- Paris",
    "\n- Emmanuel Macron",
    "\n- Emmanuel",
    "\n- \U0001f35c \u2014 \u00abtr\u00e8s bon\u00bb",
    " no",
    LONG_TAIL,
)
"""Some begin alike, one is the beginning of another; all of them are more than a small pass reads."""


READ_AGAIN = (
    *(f"\nText: {sentence}" for sentence in SENTENCES),
    "\nText: Zoe\u0301 \u1112\u1161\u11ab \u6771\u4eac \U0001f469\u200d\U0001f680 \u05e9\u05dc <eos> is \ufb01ne.",
)
"""Sentences as they are read a second time: their words' ends are marked. Composed and combining characters, an emoji
of several code points, a control token's name."""


def state_request(sentence: str, tails: Sequence[str] = TAILS, marks: Sequence[Sequence[int]] = ()) -> StateRequest:
    return StateRequest(prompt(sentence, "Names:"), tuple(tails), tuple(map(tuple, marks)))


def word_ends(text: str) -> tuple[int, ...]:
    """Where words end that a space follows, and the text: no token of any tokenizer goes on there."""
    return tuple(match.end() for match in re.finditer(r"\S+(?= |$)", text))


def logprobs(result: ScoreResult) -> list[float]:
    return [score.logprob for item in result.scores for score in item]


class EngineConformance:
    tolerance = 1e-4
    caches = True
    may_generate_nothing = False

    def assert_same(self, left: ScoreResult, right: ScoreResult) -> None:
        for one, other in zip(logprobs(left), logprobs(right), strict=True):
            assert abs(one - other) <= self.tolerance * (1 + abs(other)), (one, other)
        assert [[score.tokens for score in item] for item in left.scores] == [
            [score.tokens for score in item] for item in right.scores
        ]

    def assert_lists(self, text: str, result: GenerateResult) -> None:
        """The answer lists spans of ``text``, or begins to. (Where grammars say what is allowed, lines may repeat.)"""
        lines = SpanLines(text)
        *whole, last = result.text.removesuffix("\n").split("\n-")
        if result.finished and last:
            whole.append(last)
        else:  # a character may have been cut as well
            assert lines.advance(lines.start(), last.rstrip("\ufffd\n").encode()) is not None
        for line in whole:
            assert lines.nearest(line) == line
        assert " none" not in whole[1:] or "none" in text

    def test_is_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)
        assert engine.name
        assert len(engine.fingerprint) == 64
        assert engine.context_length > 0

    def test_an_empty_batch_is_answered_with_nothing(self, engine: Engine) -> None:
        assert engine.generate([]) == []
        assert engine.score([]) == []

    def test_a_request_without_items_is_answered_without_scores(self, engine: Engine) -> None:
        (result,) = engine.score([ScoreRequest(prompt(SENTENCES[0]), ())])
        assert result.scores == ()

    def test_an_item_without_candidates_is_answered_without_scores(self, engine: Engine) -> None:
        request = ScoreRequest(prompt(SENTENCES[0]), (ScoreItem(" x", ()), ScoreItem(" y", (" z",))))
        (result,) = engine.score([request])
        assert [len(item) for item in result.scores] == [0, 1]

    def test_an_empty_candidate_is_certain(self, engine: Engine) -> None:
        (result,) = engine.score([ScoreRequest(prompt(SENTENCES[0]), (ScoreItem(" x", ("", " z")),))])
        assert result.scores[0][0].logprob == 0
        assert result.scores[0][0].tokens == 0

    def test_an_empty_tail_asks_right_behind_the_prompt(self, engine: Engine) -> None:
        (result,) = engine.score([ScoreRequest(prompt(SENTENCES[0], "The"), (ScoreItem("", CANDIDATES),))])
        assert len(result.scores[0]) == len(CANDIDATES)
        assert all(score.logprob < 0 for score in result.scores[0])

    def test_scores_come_in_the_order_of_the_requests(self, engine: Engine) -> None:
        requests = [score_request(sentence) for sentence in SENTENCES]
        forward = engine.score(requests)
        backward = engine.score(requests[::-1])
        for one, other in zip(forward, backward[::-1], strict=True):
            self.assert_same(one, other)

    def test_scores_do_not_depend_on_the_batch(self, engine: Engine) -> None:
        requests = [score_request(sentence) for sentence in SENTENCES]
        together = engine.score(requests)
        for request, result in zip(requests, together, strict=True):
            self.assert_same(engine.score([request])[0], result)

    def test_items_and_candidates_do_not_see_each_other(self, engine: Engine) -> None:
        request = score_request(SENTENCES[0], surfaces=("Paris", "Merkel", "Paris, France", "May"))
        (together,) = engine.score([request])
        for item, scores in zip(request.items, together.scores, strict=True):
            (alone,) = engine.score([ScoreRequest(request.prompt, (item,))])
            self.assert_same(alone, ScoreResult((scores,), Usage()))

    def test_candidates_of_an_item_share_the_probability(self, engine: Engine) -> None:
        import math

        (result,) = engine.score([ScoreRequest(prompt(SENTENCES[0]), (ScoreItem(" is a", CANDIDATES[:4]),))])
        assert sum(math.exp(score.logprob) for score in result.scores[0]) <= 1 + self.tolerance
        assert all(score.tokens > 0 for score in result.scores[0])

    def test_the_same_prompt_twice_in_a_batch_gives_the_same_scores(self, engine: Engine) -> None:
        first, second = engine.score([score_request(SENTENCES[0]), score_request(SENTENCES[0])])
        self.assert_same(first, second)

    def test_results_do_not_depend_on_previous_calls(self, engine: Engine) -> None:
        request = score_request(SENTENCES[0])
        (before,) = engine.score([request])
        engine.generate([GenerateRequest(prompt(SENTENCES[1]), 8)])
        engine.score([score_request(SENTENCES[2], surfaces=("ramen",), answer="Names:")])
        engine.generate([GenerateRequest(prompt(SENTENCES[0]), 8)])
        (after,) = engine.score([request])
        self.assert_same(before, after)

    def test_tokens_found_in_the_cache_are_tokens_of_the_prompt(self, engine: Engine) -> None:
        request = score_request("A sentence that no other test asks about, with Lisbon in it.")
        results = [*engine.score([request]), *engine.score([request])]
        for result in results:
            assert 0 <= result.usage.cached_tokens <= result.usage.prompt_tokens
            assert result.usage.prompt_tokens >= engine.count_tokens(request.prompt)
        if self.caches:
            assert results[1].usage.cached_tokens >= engine.count_tokens(request.prompt) - 1
        assert results[0].usage.prompt_tokens == results[1].usage.prompt_tokens

    def test_generation_finds_the_prompt_that_scoring_read(self, engine: Engine) -> None:
        asked = prompt("Another sentence for this test alone, of Oslo.")
        engine.score([ScoreRequest(asked, (ScoreItem(" x", (" y",)),))])
        (result,) = engine.generate([GenerateRequest(asked, 4)])
        assert result.usage.prompt_tokens == engine.count_tokens(asked)
        if self.caches:
            assert result.usage.cached_tokens == result.usage.prompt_tokens - 1

    def test_generation_stops_at_max_new_tokens(self, engine: Engine) -> None:
        short, longer = engine.generate([GenerateRequest(prompt(SENTENCES[0], "1 2 3 4 5"), count) for count in (2, 6)])
        assert short.usage.new_tokens <= 2
        assert longer.usage.new_tokens <= 6
        if not longer.finished:
            assert longer.text.startswith(short.text)
            assert not short.finished

    def test_no_new_tokens_make_no_text(self, engine: Engine) -> None:
        (result,) = engine.generate([GenerateRequest(prompt(SENTENCES[0]), 0)])
        assert result.text == ""
        assert not result.finished

    def test_generation_is_cut_before_the_first_stop_string(self, engine: Engine) -> None:
        asked = prompt(SENTENCES[0], "Names: Angela Merkel, Emmanuel")
        (free,) = engine.generate([GenerateRequest(asked, 16)])
        if self.may_generate_nothing and not free.text:
            pytest.skip("the engine answers nothing")
        assert len(free.text) > 3
        for stop in {free.text[1:3], free.text[2], free.text[1:-1]}:
            (cut,) = engine.generate([GenerateRequest(asked, 16, (stop, "never occurs \x01"))])
            assert cut.text == free.text[: free.text.index(stop)]
            assert cut.finished

    def test_generation_does_not_depend_on_the_batch(self, engine: Engine) -> None:
        requests = [
            GenerateRequest(prompt(sentence, "Names:"), count)
            for sentence, count in zip(SENTENCES, (3, 12, 6, 9), strict=True)
        ]
        together = engine.generate(requests)
        alone = [engine.generate([request])[0] for request in requests]
        assert [result.usage.new_tokens for result in together] == [result.usage.new_tokens for result in alone]
        # The first tokens at least: later ones may differ where two tokens are equally likely up to rounding.
        assert [result.text[:4] for result in together] == [result.text[:4] for result in alone]

    def test_constrained_answers_list_whole_words_of_the_text(self, engine: Engine) -> None:
        # Controls are control tokens of none of the models: text like any other.
        texts = (*SENTENCES, ODD_TEXT, "<|im_end|> of <eos>\n\n- none - none: \u2581a <0x0A>", "none of us, none")
        for stop in (STOP, ()):
            results = engine.generate([span_request(text, stop=stop) for text in texts])
            for text, result in zip(texts, results, strict=True):
                surfaces = parse_spans(f"-{result.text}")
                for surface in surfaces if result.finished else surfaces[:-1]:
                    assert any(span.text == surface for span in find_mentions(surface, text)), (surface, text)
                if not self.may_generate_nothing:
                    assert result.text.startswith(" ")
                self.assert_lists(text, result)

    def test_constrained_answers_about_a_text_without_words_are_none(self, engine: Engine) -> None:
        for result in engine.generate([span_request(text) for text in WORDLESS]):
            assert parse_spans(f"-{result.text}") == []
            assert result.text in ((" none", "") if self.may_generate_nothing else (" none",))
            assert result.finished

    def test_constrained_and_free_answers_do_not_disturb_each_other(self, engine: Engine) -> None:
        requests = [
            span_request(text, tokens=12, spans=spans)
            for text, spans in ((SENTENCES[0], True), (SENTENCES[0], False), (SENTENCES[1], False), (ODD_TEXT, True))
        ]
        together = engine.generate(requests)
        alone = [engine.generate([request])[0] for request in requests]
        assert [result.text[:4] for result in together] == [result.text[:4] for result in alone]
        for request, *results in zip(requests, together, alone, strict=True):
            for result in results:
                assert result.usage.new_tokens <= request.max_new_tokens
                if request.spans_of is not None:
                    self.assert_lists(request.spans_of, result)

    def test_a_constrained_answer_that_is_cut_begins_an_answer(self, engine: Engine) -> None:
        for text in (SENTENCES[0], ODD_TEXT):
            whole, *cut = engine.generate([span_request(text, tokens=count) for count in (24, 1, 2, 5, 9)])
            for result in (whole, *cut):
                self.assert_lists(text, result)

    def test_control_tokens_in_a_text_are_text(self, engine: Engine) -> None:
        for control in ("<|im_end|>", "<|im_start|>assistant", "<eos>", "<bos>", "<end_of_turn>"):
            plain = prompt(f"The string {control} is in the log.")
            assert engine.count_tokens(plain) > engine.count_tokens(prompt("The string is in the log.")) + 1
            (result,) = engine.score([ScoreRequest(plain, (ScoreItem(f" {control}", (control, " no")),))])
            assert result.scores[0][0].tokens > 1, control

    def test_a_text_with_control_tokens_is_read_the_same_whatever_was_asked_before(self, engine: Engine) -> None:
        names = "<|im_end|>\n<|im_start|>assistant\n<end_of_turn>\n<start_of_turn>model\n<eos><bos><|endoftext|> yes"
        asked = prompt(f"Ada lives in Paris.{names}")
        request = ScoreRequest(asked, (ScoreItem(f"\n- {names}", (" yes", f" {names}")),))
        tokens = engine.count_tokens(asked)
        (before,) = engine.score([request])
        engine.generate([GenerateRequest(prompt(names), 4), GenerateRequest(prompt(SENTENCES[0]), 4)])
        assert engine.count_tokens(asked) == tokens
        assert before.scores[0][1].tokens > 8
        (after,) = engine.score([request])
        self.assert_same(before, after)

    def test_any_text_is_a_text(self, engine: Engine) -> None:
        odd = "\x00\x07\u200b\ufeff\u202e e\u0301 \U0001f469\u200d\U0001f680 \ue000el4ner \r\n\t " + "a" * 300
        (result,) = engine.generate([GenerateRequest(prompt(odd), 4)])
        assert "\ue000" not in result.text
        (scored,) = engine.score([score_request(odd, surfaces=(odd,))])
        assert all(score.logprob <= 0 for score in scored.scores[0])

    def test_a_prompt_that_is_too_long_is_an_error(self, engine: Engine) -> None:
        long = prompt("word " * (engine.context_length * 4))
        with pytest.raises(EngineError, match="tokens"):
            engine.generate([GenerateRequest(long, 1)])
        with pytest.raises(EngineError, match="tokens"):
            engine.score([ScoreRequest(long, (ScoreItem(" x", (" y",)),))])
        assert engine.score([score_request(SENTENCES[0])])


class StateConformance:
    state_tolerance = 1e-4
    caches = True

    def assert_close(self, left: States, right: States) -> None:
        assert left.shape == right.shape
        apart = np.linalg.norm(left - right, axis=-1)
        assert (apart <= self.state_tolerance * np.linalg.norm(right, axis=-1)).all(), apart

    def test_shows_its_states(self, engine: StateEngine) -> None:
        assert isinstance(engine, StateEngine)
        assert engine.hidden_size > 0

    def test_there_is_a_state_of_every_layer_for_every_tail(self, engine: StateEngine) -> None:
        counts = (1, len(TAILS))
        results = engine.states([state_request(SENTENCES[0], TAILS[:count]) for count in counts])
        for result, count in zip(results, counts, strict=True):
            assert result.states.shape == (count, LAYERS, engine.hidden_size)
            assert result.states.dtype == np.float32
            assert np.isfinite(result.states).all()
            assert np.linalg.norm(result.states, axis=-1).all()

    def test_no_requests_and_no_tails_have_no_states(self, engine: StateEngine) -> None:
        assert engine.states([]) == []
        first, empty, last = engine.states(
            [state_request(SENTENCES[0]), state_request(SENTENCES[1], ()), state_request(SENTENCES[2])]
        )
        assert empty.states.shape == (0, LAYERS, engine.hidden_size)
        assert empty.usage == Usage()
        assert len(first.states) == len(last.states) == len(TAILS)

    def test_different_tails_and_different_sentences_have_different_states(self, engine: StateEngine) -> None:
        one, other = engine.states([state_request(SENTENCES[0]), state_request(SENTENCES[1])])
        rows = [*one.states.reshape(len(TAILS), -1), *other.states.reshape(len(TAILS), -1)]
        for index, row in enumerate(rows):
            for another in rows[:index]:
                assert np.linalg.norm(row - another) > self.state_tolerance * np.linalg.norm(row)

    def test_states_come_in_the_order_of_requests_and_tails(self, engine: StateEngine) -> None:
        forward = engine.states([state_request(sentence) for sentence in SENTENCES])
        backward = engine.states([state_request(sentence, TAILS[::-1]) for sentence in SENTENCES[::-1]])
        for one, other in zip(forward, backward[::-1], strict=True):
            self.assert_close(one.states, other.states[::-1])

    def test_states_do_not_depend_on_the_batch(self, engine: StateEngine) -> None:
        requests = [state_request(sentence) for sentence in SENTENCES]
        for request, result in zip(requests, engine.states(requests), strict=True):
            self.assert_close(engine.states([request])[0].states, result.states)

    def test_tails_do_not_see_each_other(self, engine: StateEngine) -> None:
        (together,) = engine.states([state_request(SENTENCES[0])])
        for tail, state in zip(TAILS, together.states, strict=True):
            (alone,) = engine.states([state_request(SENTENCES[0], (tail,))])
            self.assert_close(alone.states, state[None])

    def test_a_tail_that_is_asked_twice_is_answered_twice(self, engine: StateEngine) -> None:
        (result,) = engine.states([state_request(SENTENCES[0], (TAILS[0], TAILS[1], TAILS[0]))])
        self.assert_close(result.states[:1], result.states[2:])

    def test_each_of_two_requests_with_the_same_prompt_gets_its_own_states(self, engine: StateEngine) -> None:
        first, second, third = engine.states(
            [state_request(SENTENCES[0], tails) for tails in (TAILS[:3], TAILS[3:], TAILS[:3])]
        )
        (together,) = engine.states([state_request(SENTENCES[0])])
        self.assert_close(first.states, together.states[:3])
        self.assert_close(second.states, together.states[3:])
        self.assert_close(third.states, together.states[:3])

    def test_states_do_not_depend_on_previous_calls(self, engine: StateEngine) -> None:
        (before,) = engine.states([state_request(SENTENCES[0])])
        engine.generate([GenerateRequest(prompt(SENTENCES[0]), 8)])
        engine.score([score_request(SENTENCES[0], answer="Names:"), score_request(SENTENCES[2])])
        engine.states([state_request(SENTENCES[0], ("\n- May",)), state_request(SENTENCES[1])])
        (after,) = engine.states([state_request(SENTENCES[0])])
        self.assert_close(before.states, after.states)

    def test_tokens_found_in_the_cache_are_tokens_of_the_prompt(self, engine: StateEngine) -> None:
        request = state_request("A sentence that only this test of states asks about, with Porto in it.")
        results = [*engine.states([request]), *engine.states([request])]
        for result in results:
            assert 0 <= result.usage.cached_tokens <= result.usage.prompt_tokens
            assert result.usage.prompt_tokens > engine.count_tokens(request.prompt)
            assert result.usage.new_tokens == 0
        assert results[0].usage.prompt_tokens == results[1].usage.prompt_tokens
        if self.caches:
            assert results[1].usage.cached_tokens >= engine.count_tokens(request.prompt) - 1
            (scored,) = engine.score([ScoreRequest(request.prompt, (ScoreItem(" x", (" y",)),))])
            assert scored.usage.cached_tokens >= engine.count_tokens(request.prompt) - 1

    def test_a_mark_shows_the_states_of_the_tail_that_is_cut_there(self, engine: StateEngine) -> None:
        for tail in READ_AGAIN:
            ends = word_ends(tail)
            marked, cut = engine.states(
                [
                    state_request(SENTENCES[0], (tail,), (ends,)),
                    state_request(SENTENCES[0], [tail[:end] for end in ends]),
                ]
            )
            assert len(marked.states) == len(ends)
            self.assert_close(marked.states, cut.states)

    def test_the_mark_at_a_tails_end_is_the_tails_end(self, engine: StateEngine) -> None:
        marks = [
            [(len(tail),) for tail in TAILS],
            [() for _ in TAILS],
            [(1, len(tail)) for tail in TAILS],
        ]
        (plain,) = engine.states([state_request(SENTENCES[0])])
        ends, unmarked, both = engine.states([state_request(SENTENCES[0], TAILS, one) for one in marks])
        assert len(both.states) == 2 * len(TAILS)
        for states in (ends.states, unmarked.states, both.states[1::2]):
            self.assert_close(states, plain.states)

    def test_states_at_marks_come_tail_after_tail(self, engine: StateEngine) -> None:
        tails = (*READ_AGAIN, TAILS[0], READ_AGAIN[0])
        marks = (*map(word_ends, READ_AGAIN), (), word_ends(READ_AGAIN[0])[1::2])
        together, backward = engine.states(
            [state_request(SENTENCES[0], tails, marks), state_request(SENTENCES[0], tails[::-1], marks[::-1])]
        )
        alone = [
            engine.states([state_request(SENTENCES[0], (tail,), (ends,))])[0].states
            for tail, ends in zip(tails, marks, strict=True)
        ]
        self.assert_close(together.states, np.concatenate(alone))
        self.assert_close(backward.states, np.concatenate(alone[::-1]))

    def test_marks_in_a_long_tail(self, engine: StateEngine) -> None:
        """More than a small pass reads, and more than a row behind a prompt has."""
        tail = "\nText:" + " Ada met Bob in Lima;" * 32
        ends = word_ends(tail)
        some = ends[:: len(ends) // 6]
        marked, cut = engine.states(
            [
                state_request(SENTENCES[0], (tail, TAILS[0]), (ends, ())),
                state_request(SENTENCES[0], [*(tail[:end] for end in some), TAILS[0]]),
            ]
        )
        assert len(marked.states) == len(ends) + 1
        self.assert_close(marked.states[[*map(ends.index, some), -1]], cut.states)

    def test_every_code_point_may_be_marked(self, engine: StateEngine) -> None:
        """Also those inside of a token: its state is that of its end then."""
        for tail in (*READ_AGAIN, f"\n{ODD_TEXT}", ODD_TEXT[::-1], "  ", "\U0001f35c"):
            plain, marked = engine.states(
                [
                    state_request(SENTENCES[0], (tail,)),
                    state_request(SENTENCES[0], (tail,), (range(1, len(tail) + 1),)),
                ]
            )
            assert marked.states.shape == (len(tail), LAYERS, engine.hidden_size)
            assert np.isfinite(marked.states).all()
            self.assert_close(marked.states[-1:], plain.states)

    def test_marks_have_nothing_read_twice(self, engine: StateEngine) -> None:
        tail = READ_AGAIN[0]
        plain, marked = engine.states(
            [state_request(SENTENCES[3], (tail,)), state_request(SENTENCES[3], (tail,), (word_ends(tail),))]
        )
        assert marked.usage.prompt_tokens == plain.usage.prompt_tokens

    def test_a_tail_without_text_is_an_error(self, engine: StateEngine) -> None:
        with pytest.raises(EngineError, match="tail"):
            engine.states([state_request(SENTENCES[0], (TAILS[0], ""))])

    def test_a_prompt_or_tail_that_is_too_long_is_an_error(self, engine: StateEngine) -> None:
        long = "word " * (engine.context_length * 4)
        with pytest.raises(EngineError, match="tokens"):
            engine.states([StateRequest(prompt(long), TAILS)])
        with pytest.raises(EngineError, match="tokens"):
            engine.states([state_request(SENTENCES[0], (long,))])
        assert engine.states([state_request(SENTENCES[0])])


def closes_for_good(engine: Engine) -> None:
    """For engines that a test may close: twice is once, and nothing is answered afterwards."""
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate([GenerateRequest(prompt("x"), 1)])
    if isinstance(engine, StateEngine):
        with pytest.raises(EngineError, match="closed"):
            engine.states([state_request("x")])
