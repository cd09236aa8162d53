"""What every token of a vocabulary writes, in bytes, and which tokens may follow where only some bytes may.

Two families of tokenizers are read: byte-level BPE (GPT-2's alphabet: SmolLM2, Qwen, Llama 3, Phi-4, GLM-4) and
SentencePiece's with ``▁`` for a space and ``<0xE2>`` for a byte (Gemma, Llama 2, Mistral, Phi-3).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from el4ner.errors import EngineError

__all__ = ["Automaton", "TokenIds", "Vocabulary"]

TokenIds = npt.NDArray[np.int64]

_SPACE: Final = "▁"
_PROBE: Final = "\n- Zoë's 東京 \U0001f35c,  none\n\n"
"""Written in both ways when a vocabulary is made: what it takes the tokens for has to be what the tokenizer reads."""
_FEW: Final = 8
"""So few tokens are tried one by one: that is faster than to part them further."""

S = TypeVar("S")


class Automaton(Protocol[S]):
    """Reads bytes, one after another. States are compared by value and not changed."""

    def advance(self, state: S, written: bytes, /) -> S | None:
        """The state after ``written``; None where that may not be written."""

    def following(self, state: S, /) -> Iterable[int]:
        """Every byte that may follow is one of these."""

    def ended(self, state: S, /) -> bool:
        """Whether anything may follow, since nobody reads it any more."""


class Vocabulary:
    """The tokens of one tokenizer that write text: all but control tokens.

    Args:
        tokenizer: of transformers, as :class:`~el4ner.engines.rendering.Renderer` takes it; what a token writes is
            what the renderer's ``decode`` makes of it behind others.
        size: how many tokens the model knows; None: all that the tokenizer does.

    Raises:
        EngineError: a tokenizer of another family.
    """

    def __init__(self, tokenizer: Any, size: int | None = None) -> None:
        backend = tokenizer.backend_tokenizer
        written_by = _decoder(backend)
        control = {int(number) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._written: dict[int, bytes] = {}
        for piece, number in backend.get_vocab(with_added_tokens=True).items():
            if number in control or (size is not None and number >= size):
                continue
            written = written_by(piece)
            if written:
                self._written[number] = written
        _prove(backend, self._written)
        single = {written[0] for written in self._written.values() if len(written) == 1}
        self.unwritable = frozenset(range(256)) - single
        """Bytes that are no token of their own. Texts of all others can be written, whatever was written before."""
        ordered = sorted((written, number) for number, written in self._written.items())
        self._sorted = [written for written, _ in ordered]
        self._numbers: TokenIds = np.asarray([number for _, number in ordered], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._sorted)

    def written(self, token: int) -> bytes | None:
        """The bytes of ``token``; None for a control token, and for one that is not in the vocabulary."""
        return self._written.get(token)

    def allowed(self, automaton: Automaton[S], state: S) -> TokenIds:
        """All tokens whose bytes ``automaton`` may read in ``state``, ascending.

        Tokens in the order of their bytes are a tree: those that begin alike stand side by side. Only what the
        automaton can read is looked at, so that the time goes with that and hardly with the vocabulary's size.
        """
        tokens = self._sorted
        found: list[int] = []
        ranges: list[tuple[int, int]] = []
        waiting = [(state, b"", 0, len(tokens))]
        while waiting:
            state, begun, first, end = waiting.pop()
            if automaton.ended(state):
                ranges.append((first, end))
                continue
            while first < end and len(tokens[first]) == len(begun):
                found.append(first)
                first += 1
            if end - first <= _FEW:
                depth = len(begun)
                found += [at for at in range(first, end) if automaton.advance(state, tokens[at][depth:]) is not None]
                continue
            for byte in automaton.following(state):
                written = bytes((byte,))
                longer = begun + written
                low = bisect_left(tokens, longer, first, end)
                if low == end or not tokens[low].startswith(longer):
                    continue
                behind = automaton.advance(state, written)
                if behind is not None:
                    high = end if byte == 255 else bisect_left(tokens, begun + bytes((byte + 1,)), low, end)
                    waiting.append((behind, longer, low, high))
        parts = [np.asarray(found, dtype=np.int64), *(np.arange(low, high, dtype=np.int64) for low, high in ranges)]
        return np.sort(self._numbers[np.concatenate(parts)])


def _decoder(backend: Any) -> Callable[[str], bytes]:
    """What the tokenizer's own decoder makes of one token in the middle of others."""
    kinds = list(_kinds(json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else {}))
    if kinds == ["ByteLevel"]:
        return _byte_level
    if kinds and set(kinds) <= {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}:
        return _with_spaces
    raise EngineError(
        f"answers cannot be constrained with this tokenizer, which decodes by {' and '.join(kinds) or 'nothing'}: "
        "set method.constrain = false"
    )


def _kinds(decoder: dict[str, Any]) -> Iterable[str]:
    if decoder.get("type") == "Sequence":
        for inner in decoder["decoders"]:
            yield from _kinds(inner)
        return
    kind = str(decoder.get("type", ""))
    is_space = decoder.get("pattern", {}).get("String") == _SPACE and decoder.get("content") == " "
    if kind == "Replace" and not is_space:
        kind = "another Replace"
    if kind == "Metaspace" and decoder.get("replacement") != _SPACE:
        kind = "another Metaspace"
    if kind:
        yield kind


def _alphabet() -> dict[int, int]:
    """GPT-2's: a printable character for every byte, mostly the one of Latin-1. Its code point → the byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: byte for byte in shown} | {256 + index: byte for index, byte in enumerate(hidden)}


_ALPHABET: Final = _alphabet()
_LETTERS: Final = frozenset(map(chr, _ALPHABET))


def _byte_level(piece: str) -> bytes:
    # A token that was added to the vocabulary may be written as it is read: whatever is not in the alphabet.
    return piece.translate(_ALPHABET).encode("latin-1") if _LETTERS.issuperset(piece) else piece.encode()


def _with_spaces(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return bytes((int(piece[3:5], 16),))
        except ValueError:
            pass
    return piece.replace(_SPACE, " ").encode()


def _prove(backend: Any, written: dict[int, bytes]) -> None:
    tokens = backend.encode(_PROBE, add_special_tokens=False).ids
    joined = b"".join(written.get(token, b"\xff") for token in tokens)
    # At the beginning of a text alone, some add a space when they encode and take it off when they decode.
    if joined.decode(errors="replace").lstrip(" ") != backend.decode(tokens, skip_special_tokens=True).lstrip(" "):
        raise EngineError(
            "answers cannot be constrained with this tokenizer, which reads its own tokens in another way: "
            "set method.constrain = false"
        )
