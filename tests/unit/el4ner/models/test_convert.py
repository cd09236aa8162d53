"""Conversion of a tiny GGUF file, written here with the ``gguf`` package."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from el4ner.engines.rendering import Renderer
from el4ner.errors import ModelError
from el4ner.models.convert import convert
from el4ner.models.gguf_file import GgufFile
from el4ner.models.gguf_tokenizer import build_tokenizer
from el4ner.models.manifest import write_manifest
from el4ner.models.progress import NO_PROGRESS
from el4ner.models.tokenizers import PreparedTokenizer, load_tokenizer

gguf = pytest.importorskip("gguf")

WIDTH, HEADS, KV_HEADS, FEED = 32, 4, 2, 64
KV_WIDTH = WIDTH * KV_HEADS // HEADS
PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "\n", "\n\n", "  ", "<b>", "a", "b", "▁", "▁a", "ab", "▁ab", "aab"]
KINDS = [3, 3, 3, 3, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1]
SCORES = [0.0, 0.0, 0.0, 0.0, -1000.0, -1000.0, -1000.0, -1000.0, -90.0, -91.0, -92.0, -3.0, -1.0, -2.0, -4.0]
SENTENCE_PIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": PIECES + [f"<0x{byte:02X}>" for byte in range(256)],
    "tokenizer.ggml.token_type": KINDS + [6] * 256,
    "tokenizer.ggml.scores": SCORES + [0.0] * 256,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
}


BIASES = {"blk.0.attn_q.bias": WIDTH, "blk.0.attn_k.bias": KV_WIDTH, "blk.0.attn_v.bias": KV_WIDTH}


def write_llama(
    path: Path,
    random: np.random.Generator,
    *,
    architecture: str = "llama",
    words: str = "smollm",
    biases: Mapping[str, int] = MappingProxyType({}),
    output: bool = False,
) -> dict[str, np.ndarray]:
    """The file, and its tensors as they were (the feed-forward weights lose a little: they are quantised)."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_tokenizer_pre(words)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "Ġ", "Ċ", "Ġa"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (KV_WIDTH, WIDTH),
        "blk.0.attn_v": (KV_WIDTH, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_norm": (WIDTH,),
        "blk.0.ffn_gate": (FEED, WIDTH),
        "blk.0.ffn_up": (FEED, WIDTH),
        "blk.0.ffn_down": (WIDTH, FEED),
    }
    if output:
        shapes["output"] = (len(tokens), WIDTH)
    tensors = {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {name: random.normal(size=size).astype(np.float32) for name, size in biases.items()}
    for name, values in tensors.items():
        if "ffn_" in name and values.ndim == 2:
            quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_file_is_read_whole_or_in_pieces(tmp_path: Path, random: np.random.Generator) -> None:
    tensors = write_llama(tmp_path / "tiny.gguf", random)
    with GgufFile(tmp_path / "tiny.gguf") as file:
        assert set(file.tensors) == set(tensors)
        assert file.metadata["llama.attention.head_count"] == HEADS
        for name, expected in tensors.items():
            assert file.tensors[name].shape == expected.shape
            read = file.read(name)
            assert np.allclose(read, expected, atol=0.05 if "ffn_" in name else 0)
            pieces = list(file.pieces(name, max_values=100))
            assert np.array_equal(np.concatenate(pieces).reshape(expected.shape), read)


def test_a_converted_model_loads_and_has_the_weights(tmp_path: Path, random: np.random.Generator) -> None:
    tensors = write_llama(tmp_path / "tiny.gguf", random)
    folder = tmp_path / "model"
    folder.mkdir()
    convert(tmp_path / "tiny.gguf", folder, NO_PROGRESS)
    weights = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    expected = torch.from_numpy(tensors["blk.0.attn_output.weight"]).to(torch.bfloat16)
    assert torch.equal(weights["model.layers.0.self_attn.o_proj.weight"], expected)
    # llama.cpp interleaves rotary halves: rows 0, 1, 2, 3 of a head of 8 are rows 0, 4, 1, 5 here.
    theirs = torch.from_numpy(tensors["blk.0.attn_q.weight"]).to(torch.bfloat16)
    ours = weights["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(theirs[[8, 9, 10, 11]], ours[[8, 12, 9, 13]])
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_key_value_heads == KV_HEADS
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert tokenizer.tokenize("a a12<|im_end|>") == ["a", "Ġa", "1", "2", "<|im_end|>"]
    assert model(torch.tensor([tokenizer("a a")["input_ids"]])).logits.isfinite().all()


def test_a_converted_models_tokenizer_is_read_as_transformers_reads_it(
    tmp_path: Path, random: np.random.Generator
) -> None:
    write_llama(tmp_path / "tiny.gguf", random)
    folder = tmp_path / "model"
    folder.mkdir()
    convert(tmp_path / "tiny.gguf", folder, NO_PROGRESS)
    assert not isinstance(load_tokenizer(folder), PreparedTokenizer), "nobody says that the converter wrote it"
    write_manifest(folder, {"format": 1})
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, PreparedTokenizer)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours("a a12")["input_ids"] == theirs("a a12")["input_ids"]
    assert {number: str(token) for number, token in ours.added_tokens_decoder.items()} == {
        number: str(token) for number, token in theirs.added_tokens_decoder.items()
    }
    mine, other = Renderer(ours), Renderer(theirs)
    assert (mine.template, mine.end_tokens) == (other.template, other.end_tokens)
    for text in ("a a12", "<|im_end|>", " ", "a\n\na1<|im_start|>2"):
        assert mine.encode(text) == other.encode(text)
        assert mine.encode_prompt(text, text) == other.encode_prompt(text, text)
        assert mine.decode(list(mine.encode(text))) == other.decode(list(other.encode(text)))
    settings = orjson.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps({**settings, "add_bos_token": True}))
    assert not isinstance(load_tokenizer(folder), PreparedTokenizer), "a setting that changes what tokenizer.json does"


@pytest.mark.parametrize("content", [b"{", b"{}", b""])
def test_a_damaged_tokenizer_is_an_error_and_no_crash(
    tmp_path: Path, random: np.random.Generator, content: bytes
) -> None:
    write_llama(tmp_path / "tiny.gguf", random)
    folder = tmp_path / "model"
    folder.mkdir()
    convert(tmp_path / "tiny.gguf", folder, NO_PROGRESS)
    write_manifest(folder, {"format": 1})
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("output", [False, True])
def test_a_qwen2_model_keeps_its_biases_and_the_order_of_its_rows(
    tmp_path: Path, random: np.random.Generator, output: bool
) -> None:
    tensors = write_llama(
        tmp_path / "tiny.gguf", random, architecture="qwen2", words="qwen2", biases=BIASES, output=output
    )
    folder = tmp_path / "model"
    folder.mkdir()
    convert(tmp_path / "tiny.gguf", folder, NO_PROGRESS)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.config.rope_parameters == {"rope_type": "default", "rope_theta": 1_000_000.0}
    assert model.config.tie_word_embeddings is not output
    attention = model.model.layers[0].self_attn
    for part, layer in {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}.items():
        for kind, found in {"weight": layer.weight, "bias": layer.bias}.items():
            expected = torch.from_numpy(tensors[f"blk.0.attn_{part}.{kind}"]).to(torch.bfloat16)
            assert torch.equal(found.to(torch.bfloat16), expected), f"{part} {kind}"
    head = torch.from_numpy(tensors["output.weight" if output else "token_embd.weight"]).to(torch.bfloat16)
    assert torch.equal(model.lm_head.weight.to(torch.bfloat16), head)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("a a12<|im_end|>") == ["a", "Ġa", "1", "2", "<|im_end|>"]
    assert tokenizer.eos_token == "<|im_end|>"
    assert model(torch.tensor([tokenizer("a a")["input_ids"]])).logits.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("llama", "blk.0.attn_q.bias"), ("qwen2", "blk.0.attn_output.bias"), ("qwen2", "output_norm.bias")],
)
def test_a_bias_that_the_model_does_not_have_is_refused(
    tmp_path: Path, random: np.random.Generator, architecture: str, name: str
) -> None:
    write_llama(tmp_path / "tiny.gguf", random, architecture=architecture, biases={name: WIDTH})
    with pytest.raises(ModelError, match=name):
        convert(tmp_path / "tiny.gguf", tmp_path, NO_PROGRESS)


def test_another_architecture_is_refused(tmp_path: Path, random: np.random.Generator) -> None:
    write_llama(tmp_path / "tiny.gguf", random, architecture="falcon")
    with pytest.raises(ModelError, match="falcon"):
        convert(tmp_path / "tiny.gguf", tmp_path, NO_PROGRESS)


@pytest.mark.parametrize("content", [b"not at all", b"GGUF", b"GGUF\x09\0\0\0", b"GGUF\x03\0\0\0" + b"\xff" * 16])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.gguf"):
        GgufFile(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab", ["ab"]),
        (" ab", ["▁ab"]),
        ("aab", ["aab"]),  # "ab" first, which is how "aab" is reached
        ("a\n\nb", ["a", "\n\n", "b"]),
        ("a   b", ["a", "▁▁", "▁", "b"]),
        ("a<b>", ["a", "<b>"]),
        ("é", ["<0xC3>", "<0xA9>"]),
    ],
)
def test_sentence_pieces_are_merged_by_score(text: str, expected: list[str]) -> None:
    tokenizer = build_tokenizer(SENTENCE_PIECE)
    assert tokenizer.encode(text).tokens == ["<bos>", *expected]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it's we'LL", ["it", "'s", "Ġwe", "'LL"]),
        ("in 2024", ["in", "Ġ", "2", "0", "2", "4"]),
        ("(x):\n\n  y", ["(x", "):ĊĊ", "Ġ", "Ġy"]),
        ("a   b", ["a", "ĠĠ", "Ġb"]),
        ("cafe\u0301!", ["cafÃ©", "!"]),  # composed first
        ("東京", ["æĿ±äº¬"]),
        ("<|im_end|>", ["<|im_end|>"]),
    ],
)
def test_qwen2_cuts_words_its_own_way(text: str, expected: list[str]) -> None:
    # Every byte, and merges from the left: each word of the pre-tokenizer becomes one token.
    words = [word for word in expected if len(word) > 1 and not word.startswith("<")]
    merges = list(dict.fromkeys(f"{word[:cut]} {word[cut]}" for word in words for cut in range(1, len(word))))
    pieces = [merge.replace(" ", "") for merge in merges]
    tokens = ["<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(pieces)]
    tokenizer = build_tokenizer(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3, *[1] * (len(tokens) - 1)],
            "tokenizer.ggml.merges": merges,
        }
    )
    encoded = tokenizer.encode(text)
    assert encoded.tokens == expected
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


def test_a_tokenizer_is_the_same_after_saving(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(SENTENCE_PIECE)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = type(tokenizer).from_file(str(tmp_path / "tokenizer.json"))
    assert json.loads(again.to_str()) == json.loads(tokenizer.to_str())


def test_an_unknown_kind_of_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match="wordpiece"):
        build_tokenizer({"tokenizer.ggml.model": "wordpiece"})
