"""A GGUF file's vocabulary as a ``tokenizers`` tokenizer.

Why not transformers' own conversion: it loses Gemma's merges when the tokenizer is saved and read again (every
character becomes a token of its own), does not split SmolLM2's digits, and takes half a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from el4ner.errors import ModelError

__all__ = ["build_tokenizer", "special_tokens"]

NORMAL: Final = 1
CONTROL: Final = 3
USER_DEFINED: Final = 4
SPACE: Final = "▁"
DIGITS_ALONE: Final = frozenset({"smollm"})
"""``tokenizer.ggml.pre`` of GPT-2-like tokenizers that split every digit off."""
QWEN2: Final = "qwen2"
GPT2_LIKE: Final = frozenset({"gpt-2", "smollm", QWEN2})
QWEN2_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2 cuts a text before it merges; no file has it: llama.cpp and transformers have it in their code."""


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata describe.

    Raises:
        ModelError: of a kind that is not known.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2" and metadata.get("tokenizer.ggml.pre") in GPT2_LIKE:
        tokenizer = _byte_level(metadata)
    elif kind == "llama" and not metadata.get("tokenizer.ggml.add_space_prefix", True):
        tokenizer = _sentence_piece(metadata)
    else:
        raise ModelError(f"tokenizers of kind {kind!r} ({metadata.get('tokenizer.ggml.pre')!r}) cannot be converted")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, of in zip(tokens, kinds, strict=True)
            if of == CONTROL
        ]
    )
    # Runs of spaces are reached by merges: the normaliser has made them "▁" before an added token could match.
    whole = [token for token, of in zip(tokens, kinds, strict=True) if of == USER_DEFINED and token.strip(" ")]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in whole])
    if metadata.get("tokenizer.ggml.add_bos_token"):
        begin = tokens[metadata["tokenizer.ggml.bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, metadata["tokenizer.ggml.bos_token_id"])],
        )
    return tokenizer


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token``, ``eos_token`` … by the names that transformers uses."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    return {
        f"{ours}_token": tokens[metadata[f"tokenizer.ggml.{theirs}_token_id"]]
        for theirs, ours in names.items()
        if f"tokenizer.ggml.{theirs}_token_id" in metadata
    }


def _byte_level(metadata: Mapping[str, Any]) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    kind = metadata["tokenizer.ggml.pre"]
    first: list[pre_tokenizers.PreTokenizer] = []
    if kind == QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        first = [pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")]
    elif kind in DIGITS_ALONE:
        first = [pre_tokenizers.Digits(individual_digits=True)]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != QWEN2)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(metadata: Mapping[str, Any]) -> Tokenizer:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    scores: list[float] = metadata["tokenizer.ggml.scores"]
    pieces = [
        token.replace(" ", SPACE) if kind in (NORMAL, USER_DEFINED) else token
        for token, kind in zip(tokens, kinds, strict=True)
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = _merges(pieces, kinds, scores, vocabulary)
    unknown = pieces[metadata["tokenizer.ggml.unknown_token_id"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    # Splits nothing (the normaliser has taken all spaces), but is what Gemma's own tokenizer file says.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _merges(
    pieces: list[str], kinds: list[int], scores: list[float], vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    """SentencePiece merges the pair whose piece has the best score, which byte-pair encoding writes as a list of pairs.

    User-defined pieces come before all others: SentencePiece cuts them out of the text before it merges anything.
    """
    ranked: list[tuple[float, int, int, str, str]] = []
    for piece, kind, score in zip(pieces, kinds, scores, strict=True):
        if len(piece) < 2 or kind not in (NORMAL, USER_DEFINED):
            continue
        priority = float("-inf") if kind == USER_DEFINED else -score
        for cut in range(1, len(piece)):
            left = vocabulary.get(piece[:cut])
            if left is not None:
                right = vocabulary.get(piece[cut:])
                if right is not None:
                    ranked.append((priority, left, right, piece[:cut], piece[cut:]))
    ranked.sort()
    return [(left, right) for _, _, _, left, right in ranked]
