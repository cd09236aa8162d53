from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from el4ner.engines.base import Prompt
from el4ner.engines.rendering import Renderer
from tests.support.tiny_models import CONTROL, TEMPLATE, byte_tokenizer

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<bos>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)


def shown(renderer: Renderer, prompt: Prompt) -> str:
    return renderer._backend.decode(list(renderer.prefix(prompt)), skip_special_tokens=False)


def test_the_template_stands_around_the_prompt() -> None:
    renderer = Renderer(byte_tokenizer(template=TEMPLATE))
    assert shown(renderer, Prompt("Be brief.", "Who?", "It is")) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nIt is"
    )
    assert shown(renderer, Prompt("", "Who?")).startswith("<|im_start|>user\nWho?")


def test_a_template_without_system_message_shows_it_before_the_users() -> None:
    renderer = Renderer(byte_tokenizer(template=NO_SYSTEM))
    expected = "<bos>user\nBe brief.\n\nWho?<|im_end|><|im_start|>model\n"
    assert shown(renderer, Prompt("Be brief.", "Who?")) == expected


def test_without_template_it_is_plain_text_behind_one_begin_token() -> None:
    renderer = Renderer(byte_tokenizer())
    assert shown(renderer, Prompt("Be brief.", "<bos>Who?", "It is")) == "<bos>Be brief.\n\n<bos>Who?\nIt is"
    assert renderer.prefix(Prompt("", "<bos>Who?")).count(1) == 1


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "chat"])
def test_control_tokens_come_from_the_template_alone(template: str | None) -> None:
    renderer = Renderer(byte_tokenizer(template=template))
    clean, dirty = Prompt("a", "b", "c"), Prompt(*(f"{''.join(CONTROL)} {text}" for text in "abc"))
    controls = range(len(CONTROL))
    assert [token for token in renderer.prefix(dirty) if token in controls] == [
        token for token in renderer.prefix(clean) if token in controls
    ]
    assert "<|im_end|> a" in shown(renderer, dirty)
    assert renderer.decode(list(renderer.encode("<eos> x"))) == "<eos> x"


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "chat"])
def test_a_text_is_encoded_the_same_before_and_after_other_prompts(template: str | None) -> None:
    texts = [f"{name} a {name}" for name in CONTROL]
    renderer = Renderer(byte_tokenizer(template=template))
    before = [renderer._encode(text) for text in texts]
    renderer.prefix(Prompt("a", "b", "c"))
    assert [renderer._encode(text) for text in texts] == before


def test_text_is_cut_as_the_tokenizer_cuts_it_across_template_and_prompt() -> None:
    tokenizer = byte_tokenizer(template=TEMPLATE)
    renderer = Renderer(tokenizer)
    messages = [{"role": "system", "content": "in on"}, {"role": "user", "content": "er an pin"}]
    tokenizer.backend_tokenizer.encode_special_tokens = False
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    tokenizer.backend_tokenizer.encode_special_tokens = True
    assert list(renderer.prefix(Prompt("in on", "er an pin"))) == expected


def test_segments_are_encoded_one_by_one() -> None:
    renderer = Renderer(byte_tokenizer())
    alone = renderer.prefix(Prompt("", "x"))
    assert renderer.prefix(Prompt("", "x", "in")) == alone + renderer.encode("in")
    assert renderer.encode("") == ()


def test_an_answer_ends_with_the_templates_control_token_or_the_end_of_text() -> None:
    assert Renderer(byte_tokenizer(template=TEMPLATE)).end_tokens == {
        CONTROL.index("<eos>"),
        CONTROL.index("<|im_end|>"),
    }
    assert Renderer(byte_tokenizer()).end_tokens == {CONTROL.index("<eos>")}


def test_generated_control_tokens_are_not_shown() -> None:
    renderer = Renderer(byte_tokenizer())
    assert renderer.decode([*renderer.encode(" a"), CONTROL.index("<|im_end|>"), *renderer.encode("b")]) == " ab"


def starts(renderer: Renderer, text: str) -> list[tuple[str, int]]:
    """Each token with where it begins."""
    tokens, begins = renderer.encode_with_starts(text)
    assert tokens == renderer.encode(text)
    backend = renderer._backend
    return [(backend.id_to_token(token), start) for token, start in zip(tokens, begins, strict=True)]


def byte_fallback_tokenizer(*steps: normalizers.Normalizer) -> PreTrainedTokenizerFast:
    """As SentencePiece's: a mark for every space and one before the text, characters that it does not know as bytes."""
    pieces = [f"<0x{number:02X}>" for number in range(256)] + [*"abcdefi▁", "ab", "▁c", "<unk>"]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[("a", "b"), ("▁", "c")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_tokens_that_share_a_character_begin_with_it() -> None:
    renderer = Renderer(byte_tokenizer())
    assert [start for _, start in starts(renderer, "é in東\U0001f35c")] == [0, 0, 1, 2, 4, 4, 4, 5, 5, 5, 5]


def test_white_space_belongs_to_its_token_even_where_offsets_leave_it_out() -> None:
    tokenizer = byte_tokenizer()
    text = " a  pin \n on  "
    expected = starts(Renderer(tokenizer), text)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    assert starts(Renderer(tokenizer), text) == expected
    assert expected[2:5] == [("Ġ", 2), ("Ġp", 3), ("in", 5)]


def test_places_are_those_of_the_text_behind_the_anchor() -> None:
    renderer = Renderer(byte_fallback_tokenizer())
    assert renderer._anchor
    assert starts(renderer, "ab é c") == [("ab", 0), ("▁", 2), ("<0xC3>", 3), ("<0xA9>", 3), ("▁c", 4)]


def test_places_are_those_of_the_text_before_it_is_normalized() -> None:
    renderer = Renderer(byte_fallback_tokenizer(normalizers.NFKC()))
    assert starts(renderer, "\ufb01e\u0301 a") == [
        ("f", 0),
        ("i", 0),
        ("<0xC3>", 1),  # e and its accent as one character
        ("<0xA9>", 1),
        ("▁", 3),
        ("a", 4),
    ]
    dropping = Renderer(byte_fallback_tokenizer(normalizers.NFD(), normalizers.StripAccents()))
    assert starts(dropping, "\u0301be\u0301 c") == [("b", 0), ("e", 2), ("▁c", 4)]


def test_a_control_tokens_name_does_not_move_places() -> None:
    """Where it is part of the ordinary vocabulary, it is encoded in two pieces."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "e"), ("<e", "o"), ("<eo", "s"), ("<eos", ">")]
    pieces = [*letters, *map("".join, merges)]
    backend = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    renderer = Renderer(PreTrainedTokenizerFast(tokenizer_object=backend))
    text = "é<eos>\0<eos>東"
    assert starts(renderer, text)[:3] == [("Ã", 0), ("©", 0), ("<", 1)]
    assert [start for _, start in starts(renderer, text)] == [0, *range(len(text)), len(text) - 1, len(text) - 1]
