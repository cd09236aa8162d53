"""Originals that only the key's holder can read: AES-256-GCM, with a key for each document and revision.

The associated data are the document's id, its revision and the key's id: a ciphertext that is put under another
document does not open.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from el4ner.errors import ConfigError, El4nerError
from el4ner.redaction.key_ring import KeyRing, RedactionKey

__all__ = ["RevealError", "revealed", "sealed"]

NONCE_BYTES: Final = 12


class RevealError(El4nerError):
    """An original cannot be read; the message says why, and has nothing of it."""

    code = "reveal"


def sealed(original: bytes, document: str, revision: int, key: RedactionKey, nonce: bytes) -> dict[str, Any]:
    """What ``redacted-originals`` has. ``nonce``: 12 random bytes, never the same ones again.

    Raises:
        ConfigError: the cryptography library is not there.
    """
    cipher = _cipher(document, revision, key)
    ciphertext = cipher.encrypt(nonce, original, _associated(document, revision, key.id))
    return {
        "id": document,
        "revision": revision,
        "key": key.id,
        "nonce": b64encode(nonce).decode(),
        "ciphertext": b64encode(ciphertext).decode(),
    }


def revealed(message: Mapping[str, Any], document: str, keys: KeyRing) -> bytes:
    """The original, byte for byte.

    Raises:
        RevealError: it is another document's, its key is not there, or it was changed.
        ConfigError: the cryptography library is not there.
    """
    key_id, revision = message["key"], message["revision"]
    if message["id"] != document:
        raise RevealError(f"{document}: what lies under this id is the original of another document")
    if key_id not in keys:
        raise RevealError(f"{document}: it was encrypted with the key {key_id!r}, which is not among {', '.join(keys)}")
    from cryptography.exceptions import InvalidTag

    cipher = _cipher(document, revision, keys[key_id])
    try:
        nonce, ciphertext = (b64decode(message[name], validate=True) for name in ("nonce", "ciphertext"))
        original: bytes = cipher.decrypt(nonce, ciphertext, _associated(document, revision, key_id))
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise RevealError(f"{document}: it was changed, or the key {key_id!r} is another one of that name") from error
    return original


def _cipher(document: str, revision: int, key: RedactionKey) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError(
            "redaction.reversible needs the cryptography library: pip install 'el4ner[redact]'"
        ) from error
    # So many documents as there may be, no two share a key: a nonce that came twice by chance would do no harm.
    own = hmac.digest(key.derived("original"), _associated(document, revision, key.id), hashlib.sha256)
    return AESGCM(own)


def _associated(document: str, revision: int, key_id: str) -> bytes:
    return json.dumps([document, revision, key_id]).encode("ascii")
