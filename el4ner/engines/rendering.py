"""From a prompt to tokens: the model's chat template around it, and text never taken for control tokens."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from el4ner.engines.base import Prompt

__all__ = ["Renderer"]

SYSTEM: Final = "\ue000el4ner-system\ue001"
USER: Final = "\ue000el4ner-user\ue001"
ANSWER: Final = "\ue000el4ner-answer\ue001"
"""Stand-ins (private use code points) for the texts while the template is rendered."""


class Renderer:
    """Encodes prompts for one tokenizer.

    With a chat template: system and user message and the beginning of the model's turn. Without: ``system``, an empty
    line, ``user``, a newline. The answer follows as tokens of its own. The text between two control tokens of the
    template is encoded in one go, the way the model saw it in training; control tokens come from the template alone.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._begin = self._find_begin()
        # Stays so only as long as nobody calls the tokenizer itself, which sets it back.
        self._backend.encode_special_tokens = True
        self._control = {
            token.content: int(number) for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._control_ids = frozenset(self._control.values())
        names = sorted(self._control, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(re.escape(name) for name in names)) if names else None
        self._anchor = self._find_anchor()
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        if self.has_template:
            self._with_system = self._render_template(system=True)
            self._without_system = self._render_template(system=False)
        self.encode = lru_cache(maxsize=16_384)(self._encode)
        self.encode_with_starts = lru_cache(maxsize=4096)(self._encode_with_starts)
        self.encode_prompt = lru_cache(maxsize=512)(self._encode_prompt)
        self.end_tokens = self._find_end_tokens()

    @property
    def template(self) -> str:
        """What is put around the texts, for fingerprints."""
        return self._with_system + "\0" + self._without_system if self.has_template else ""

    def prefix(self, prompt: Prompt) -> tuple[int, ...]:
        """All tokens of the prompt: template, system, user, and the beginning of the answer."""
        return self.encode_prompt(prompt.system, prompt.user) + self.encode(prompt.answer)

    def decode(self, tokens: list[int]) -> str:
        """Text of generated tokens, without control tokens."""
        text: str = self._backend.decode([*self._anchor, *tokens], skip_special_tokens=True)
        return text[1:] if self._anchor else text

    def _encode(self, text: str) -> tuple[int, ...]:
        """Tokens of plain text. What looks like a control token stays text."""
        return tuple(
            token
            for _, _, encoding in self._pieces(text)
            for token in encoding.ids[len(self._anchor) :]
            if token not in self._control_ids
        )

    def _encode_with_starts(self, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of :meth:`encode`, and the code point of ``text`` where each begins: ascending, the first is 0.

        Tokens that share a character begin with it. A character that no token holds, because a normalizer or the
        vocabulary dropped it, counts to the token before it.
        """
        tokens: list[int] = []
        starts: list[int] = []
        shift = int(bool(self._anchor))
        for piece_start, piece, encoding in self._pieces(text):
            covered = 0
            for token, (first, end) in list(zip(encoding.ids, encoding.offsets, strict=True))[len(self._anchor) :]:
                start = max(0, first - shift)
                if start > covered:  # a tokenizer may leave white space out of the offsets of the token that holds it
                    start = covered + len(piece[covered:start].rstrip())
                covered = max(covered, end - shift)
                if token not in self._control_ids:
                    tokens.append(token)
                    starts.append(max(starts[-1], piece_start + start) if starts else 0)
        return tuple(tokens), tuple(starts)

    def _pieces(self, text: str) -> list[tuple[int, str, Any]]:
        """What is encoded in one go, mostly the whole text: where it begins, itself, and its encoding behind the
        anchor. Control tokens may still be in it."""
        if not text:
            return []
        encoding = self._plain(text)
        if self._control_pattern is None or self._control_ids.isdisjoint(encoding.ids[len(self._anchor) :]):
            return [(0, text, encoding)]
        # A tokenizer whose control tokens are part of its ordinary vocabulary: cut their names in two.
        cuts = [0, *(name.start() + 1 for name in self._control_pattern.finditer(text)), len(text)]
        return [(start, text[start:end], self._plain(text[start:end])) for start, end in pairwise(cuts)]

    def _plain(self, text: str) -> Any:
        return self._backend.encode("\n" + text if self._anchor else text, add_special_tokens=False)

    def _encode_prompt(self, system: str, user: str) -> tuple[int, ...]:
        if not self.has_template:
            text = f"{system}\n\n{user}\n" if system else f"{user}\n"
            return self._begin + self.encode(text)
        template = self._with_system if system else self._without_system
        pieces = re.split(f"({SYSTEM}|{USER})", template)
        tokens: list[int] = []
        text = ""
        for piece in pieces:
            if piece in (SYSTEM, USER):
                text += system if piece == SYSTEM else user
                continue
            at = 0
            for control in self._control_pattern.finditer(piece) if self._control_pattern is not None else ():
                tokens += self._encode(text + piece[at : control.start()])
                tokens.append(self._control[control[0]])
                text, at = "", control.end()
            text += piece[at:]
        tokens += self._encode(text)
        return tuple(tokens)

    def _find_begin(self) -> tuple[int, ...]:
        """What the tokenizer itself puts first. (Its attribute ``add_bos_token`` says no where it does.)"""
        begin = self._tokenizer.bos_token_id
        first = self._tokenizer("a")["input_ids"][:1]
        return (int(begin),) if begin is not None and first == [begin] else ()

    def _render_template(self, *, system: bool) -> str:
        user = {"role": "user", "content": USER}
        tries = [[user]]
        if system:
            # Some templates know no system message: it goes before the user's text then.
            tries = [
                [{"role": "system", "content": SYSTEM}, user],
                [{"role": "user", "content": f"{SYSTEM}\n\n{USER}"}],
            ]
        for messages in tries:
            try:
                text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception:
                continue
            if text.count(USER) == 1 and text.count(SYSTEM) == int(system):
                return text
        raise ValueError("the chat template does not show the messages exactly once")

    def _find_end_tokens(self) -> frozenset[int]:
        """End of text, and whatever control token the template puts behind an answer."""
        ends = {self._tokenizer.eos_token_id} - {None}
        if self.has_template and self._control_pattern is not None:
            messages = [{"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}]
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False)
            behind = self._control_pattern.search(text, text.find(ANSWER))
            if behind is not None:
                ends.add(self._control[behind[0]])
        return frozenset(int(end) for end in ends)

    def _find_anchor(self) -> tuple[int, ...]:
        """Tokens of a newline for tokenizers that put a space before whatever they encode (and take it off when they
        decode): texts are encoded behind that newline, which is cut off again."""
        alone = self._backend.encode("a", add_special_tokens=False).tokens
        if alone and alone[0].startswith(("▁", "Ġ")):
            return tuple(self._backend.encode("\n", add_special_tokens=False).ids)
        return ()
