from __future__ import annotations

import pytest

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
