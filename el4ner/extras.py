"""Which extra of the package brings a library that is not installed, said in one way wherever one is missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from el4ner.errors import ConfigError

__all__ = ["METHOD_EXTRAS", "NotInstalledError", "extra_explained", "extras_explained"]

METHOD_EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exllamav2": "gpu",
        "exllamav3": "exl3",
        "gguf": "embedded",
        "cryptography": "redact",
        "faker": "redact",
        "phonenumbers": "redact",
        "presidio_analyzer": "redact",
        **dict.fromkeys(
            (
                "httpx",
                "huggingface_hub",
                "psutil",
                "safetensors",
                "scipy",
                "sentence_transformers",
                "threadpoolctl",
                "tokenizers",
                "torch",
                "transformers",
            ),
            "models",
        ),
    }
)
"""From a module's name to the extra that brings it, of what the method imports."""


class NotInstalledError(ConfigError):
    """A library that was left out when el4ner was installed is needed; the message names the extra that brings it."""

    code = "not-installed"


def extra_explained(
    error: ModuleNotFoundError, extras: Mapping[str, str] = METHOD_EXTRAS, *, what: str | None = None
) -> NotInstalledError | None:
    """What to install, by what could not be imported; None: no extra brings it, so that it is a bug.

    ``what`` is what needs it, as in a command's name.
    """
    library = (error.name or "").partition(".")[0]
    extra = extras.get(library)
    if extra is None:
        return None
    prefix = "" if what is None else f"{what}: "
    return NotInstalledError(
        f"{prefix}{library} is not installed; install el4ner[{extra}] (pip install 'el4ner[{extra}]')"
    )


@contextmanager
def extras_explained(what: str, extras: Mapping[str, str] = METHOD_EXTRAS) -> Iterator[None]:
    """Say which extra is missing where the body imports a library of ``extras`` that is not installed.

    Raises:
        NotInstalledError: one of them could not be imported.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (explained := extra_explained(error, extras, what=what)) is None:
            raise
        raise explained from error
