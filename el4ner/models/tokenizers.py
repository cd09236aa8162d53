"""A model's tokenizer: where it is, and loading it in no more time than it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from el4ner.errors import ModelError
from el4ner.models.manifest import MANIFEST
from el4ner.models.prepare import prepare
from el4ner.models.safety import check_folder

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

__all__ = ["PreparedTokenizer", "load_tokenizer", "tokenizer_folder"]

_FILES: Final = (
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
    "vocab.*",
    "merges.txt",
)
_PLAIN_CLASS: Final = "PreTrainedTokenizerFast"
_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS: Final = frozenset({*_TOKENS, "tokenizer_class", "clean_up_tokenization_spaces"})
"""What ``tokenizer_config.json`` of a folder says that our converter wrote: nothing that changes ``tokenizer.json``."""


class PreparedTokenizer:
    """The tokenizer of a folder that :mod:`el4ner.models.convert` wrote: ``tokenizer.json`` as it is.

    It has of transformers' tokenizers what :class:`~el4ner.engines.rendering.Renderer` and
    :class:`~el4ner.engines.vocabulary.Vocabulary` use, with the same answers. transformers parses the vocabulary up to
    four times to come to them (to find its classes, to build, to copy): for Gemma's 262,144 tokens 4 seconds, not 1.

    Raises:
        OSError, ValueError: a file is missing or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        settings: Mapping[str, Any] = orjson.loads((folder / "tokenizer_config.json").read_bytes())
        try:
            self.backend_tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"tokenizer.json: {error}") from error
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
        self._special = {name: str(settings[name]) for name in _TOKENS if settings.get(name) is not None}
        template = folder / "chat_template.jinja"
        self.chat_template = template.read_text(encoding="utf-8") if template.is_file() else None

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that were added to the vocabulary, by number."""
        return dict(self.backend_tokenizer.get_added_tokens_decoder())

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
        return self._number("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends one."""
        return self._number("eos_token")

    def __call__(self, text: str) -> dict[str, list[int]]:
        """``input_ids``: with the tokens that the tokenizer itself puts around a text."""
        return {"input_ids": self.backend_tokenizer.encode(text).ids}

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], *, tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        """The messages as the model's template writes them. ``tokenize`` is False: tokens are the renderer's affair."""
        from transformers.utils.chat_template_utils import render_jinja_template

        assert not tokenize
        rendered, _ = render_jinja_template(
            conversations=[list(messages)],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )
        return str(rendered[0])

    def _number(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of ``folder``, for :class:`~el4ner.engines.rendering.Renderer`.

    Raises:
        OSError, ValueError, KeyError: it cannot be loaded.
    """
    if _is_plain(folder):
        return PreparedTokenizer(folder)
    # Of other folders only transformers knows which class reads them: many build parts of tokenizer.json anew.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _is_plain(folder: Path) -> bool:
    """Whether our converter wrote the folder, and nobody has put anything into its settings since."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        settings = orjson.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    is_plain = isinstance(settings, dict) and settings.keys() <= _SETTINGS
    return is_plain and settings.get("tokenizer_class") == _PLAIN_CLASS


def tokenizer_folder(source: str, cache_dir: Path) -> Path:
    """A folder with the tokenizer of ``source``. Of a hub's model the weights are not fetched.

    Raises:
        ModelError: it cannot be had, or holds what is refused.
    """
    if ":" in source or source.startswith(("/", ".", "~")):
        return prepare(source, cache_dir)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    except HFValidationError as error:
        raise ModelError(f"{source}: is no packaged model, no path and no hub id") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{source}: cannot be fetched from the model hub: {reason}") from error
    check_folder(folder, shared=True)
    return folder
