"""Constrained lists with the tokenizers of the packaged models: what is allowed, against the whole vocabulary."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from transformers import AutoTokenizer

from el4ner.engines.constraint import SpanLines, State, TokenMasks
from el4ner.engines.rendering import Renderer
from el4ner.engines.vocabulary import Vocabulary
from el4ner.models.prepare import default_cache_dir, prepare
from el4ner.stages.context import STOP
from tests.support.engine_conformance import ODD_TEXT, SENTENCES, WORDLESS

pytestmark = pytest.mark.models

TEXTS = (*SENTENCES, ODD_TEXT, *WORDLESS, "none of us — \u2581a\u2581 <0x0A> [multimodal] <|im_end|> 10\xa0000\u3000km")


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma3-270m"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    folder = prepare(f"packaged:{request.param}", default_cache_dir(os.environ))
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@pytest.fixture(scope="module")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Any) -> Vocabulary:
    return Vocabulary(tokenizer)


def test_the_vocabulary_holds_what_the_renderer_makes_of_each_token(
    tokenizer: Any, renderer: Renderer, vocabulary: Vocabulary
) -> None:
    before = list(renderer.encode("Paris"))
    for token in [*range(0, len(tokenizer), 7), *range(300)]:
        written = vocabulary.written(token)
        expected = "" if written is None else written.decode(errors="replace")
        assert renderer.decode([*before, token]) == f"Paris{expected}"
    assert len(vocabulary) == len(set(range(len(tokenizer))) - set(tokenizer.all_special_ids)) - sum(
        token.special and number not in tokenizer.all_special_ids
        for number, token in tokenizer.added_tokens_decoder.items()
    )


# No stage asks without stop strings.
@pytest.mark.parametrize(
    "stop", [pytest.param((), id="end tokens", marks=pytest.mark.slow), pytest.param(STOP, id="stop strings")]
)
def test_what_is_allowed_is_what_the_whole_vocabulary_says(
    tokenizer: Any, renderer: Renderer, vocabulary: Vocabulary, stop: tuple[str, ...]
) -> None:
    rng = random.Random(5)
    masks = TokenMasks(vocabulary, renderer.end_tokens)
    written = [(token, vocabulary.written(token)) for token in range(len(tokenizer))]
    for text in TEXTS:
        lines = SpanLines(text, stop, unwritable=vocabulary.unwritable)
        mask = masks.mask(text, stop)
        state: State | None = lines.start()
        tokens: list[int] = []
        while not mask.finished and len(tokens) < 6:
            assert state is not None
            expected = {token for token, piece in written if piece and lines.advance(state, piece) is not None}
            if lines.may_end(state):
                expected |= renderer.end_tokens
            assert mask.allowed().tolist() == sorted(expected)
            # Long tokens and short ones, the end rarely.
            token = rng.choice(sorted(expected - renderer.end_tokens) or sorted(expected))
            mask.feed(token)
            tokens.append(token)
            state = lines.advance(state, vocabulary.written(token) or b"")


def test_the_tokens_of_an_answer_are_allowed(renderer: Renderer, vocabulary: Vocabulary) -> None:
    masks = TokenMasks(vocabulary, renderer.end_tokens)
    for text, answer in (
        (SENTENCES[0], " Angela Merkel\n- Emmanuel Macron\n- Paris\n- 3 May 2019"),
        (SENTENCES[2], " Zoë\n- naïve café\n- 東京\n- 東京 ramen \U0001f35c — «très bon»"),
        (
            ODD_TEXT,
            ' Zoe\u0301 \u05e9\u05dc\u05d5\u05dd\n- "O\'Neil\\n"\n- \u0928\u092e\u0938\u094d\u0924\u0947\n- C++ 100%',
        ),
        (TEXTS[-1], " <0x0A>\n- <|im_end|> 10\xa0000\u3000km\n- none of us"),
        (SENTENCES[3], " none"),
    ):
        for behind in ("", "\n\n", "\nText:"):
            mask = masks.mask(text, STOP)
            written = renderer.encode(answer + behind)
            for token in written:
                assert token in mask.allowed(), (answer, renderer.decode([token]))
                mask.feed(token)
            assert renderer.end_tokens <= set(mask.allowed().tolist())
            assert renderer.decode(list(written)) == answer + behind
