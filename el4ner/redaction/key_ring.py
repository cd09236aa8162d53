"""The keys of redaction: where they come from, what is derived from them, and that nothing shows them.

A key is 32 random bytes with an id. What is done with it is done with keys derived from it by HMAC-SHA-256, one for
each purpose, so that pseudonyms tell nothing of the key that originals are encrypted with.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from el4ner.errors import ConfigError
from el4ner.redaction.redaction_settings import RedactionSettings

__all__ = ["KeyRing", "RedactionKey", "load_keys"]

KEY_BYTES: Final = 32
_LINE: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})")
_HOW: Final = "expected ID:KEY, the key as 64 hexadecimal digits: `el4ner redact keygen` prints one"


class RedactionKey:
    """One key. Neither ``repr`` nor an error shows it."""

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.id = key_id
        self._secret = secret
        self._pseudonyms = self.derived("pseudonym")
        self._surrogates = self.derived("surrogate")

    def __repr__(self) -> str:
        return f"RedactionKey(id={self.id!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is not written down")

    def derived(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose."""
        return hmac.digest(self._secret, f"el4ner/redaction/{purpose}/v1".encode(), hashlib.sha256)

    def pseudonym(self, kind: str, identity: str, digits: int) -> str:
        """Hexadecimal digits for a name of that kind."""
        return hmac.digest(self._pseudonyms, _message(kind, identity), hashlib.sha256).hex()[:digits]

    def surrogate_seed(self, kind: str, identity: str, draw: int) -> int:
        """What random numbers begin with, of the value that is drawn as number ``draw`` for a name of that kind: 256
        bits."""
        message = _message(kind, identity, str(draw))
        return int.from_bytes(hmac.digest(self._surrogates, message, hashlib.sha256), "big")


def _message(*parts: str) -> bytes:
    return b"\0".join(part.encode("utf-8", "surrogatepass") for part in parts)


class KeyRing(Mapping[str, RedactionKey]):
    """The keys by their ids. ``current``: makes what is new."""

    def __init__(self, keys: Mapping[str, RedactionKey]) -> None:
        self._keys = dict(keys)
        self.current = next(iter(self._keys.values()))

    def __getitem__(self, key_id: str) -> RedactionKey:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, text: str, where: str) -> KeyRing:
        """Keys from a file or a variable: one a line, or with commas between them; # begins a comment.

        Raises:
            ConfigError: says which line of ``where`` is wrong, without showing it.
        """
        keys: dict[str, RedactionKey] = {}
        for number, line in enumerate(text.replace(",", "\n").splitlines(), 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise ConfigError(f"{where}: key {number}: {_HOW}")
            if match[1] in keys:
                raise ConfigError(f"{where}: key {number}: there is one with this id already")
            keys[match[1]] = RedactionKey(match[1], bytes.fromhex(match[2]))
        if not keys:
            raise ConfigError(f"{where}: there is no key: {_HOW}")
        return cls(keys)


def load_keys(settings: RedactionSettings) -> KeyRing | None:
    """The keys that the settings name; None: they name none, and need none.

    Raises:
        ConfigError: there has to be a key and there is none, it is not one, or others may read its file.
    """
    if settings.keys is not None:
        return KeyRing.parse(settings.keys.get_secret_value(), "redaction.keys")
    if settings.keys_file is not None:
        return KeyRing.parse(_read(settings.keys_file), f"redaction.keys_file {settings.keys_file}")
    if settings.needs_keys:
        raise ConfigError(
            "redaction: pseudonyms, surrogates and originals need a key: set redaction.keys_file (or "
            "EL4NER_REDACTION__KEYS) to what `el4ner redact keygen` prints, or set redaction.action to mask"
        )
    return None


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ConfigError(
                f"redaction.keys_file {path}: others may read or change it ({stat.filemode(mode)}): chmod 600 {path}"
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"redaction.keys_file {path}: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"redaction.keys_file {path}: is no text: {_HOW}") from None
