"""Compute capabilities: which cards a compiled extension is for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from el4ner.errors import ConfigError

__all__ = ["ARCHITECTURES_VARIABLE", "Capability", "covers", "format_architectures", "parse_architectures"]

ARCHITECTURES_VARIABLE: Final = "TORCH_CUDA_ARCH_LIST"
_FORM: Final = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")
_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"Turing": "7.5+PTX", "Ampere": "8.0;8.6+PTX", "Ada": "8.9+PTX", "Hopper": "9.0+PTX"}
)
"""As torch.utils.cpp_extension reads them; the names of newer cards have changed their meaning between its versions."""


@dataclass(frozen=True, order=True, slots=True)
class Capability:
    """``9.0``: code for cards of this major number, from this minor one on.

    ``suffix``: ``a`` or ``f``, code for these cards alone. ``ptx``: also code that a driver translates for newer cards.
    """

    major: int
    minor: int
    suffix: str = ""
    ptx: bool = False

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.suffix}{'+PTX' if self.ptx else ''}"

    def serves(self, card: Capability) -> bool:
        """Whether code that was compiled for this runs where ``card`` is asked for."""
        if self.major != card.major or (card.ptx and not self.ptx) or card.suffix not in ("", self.suffix):
            return False
        if card.ptx or self.suffix:
            return self.minor == card.minor
        return self.minor <= card.minor


def parse_architectures(text: str, source: str = ARCHITECTURES_VARIABLE) -> tuple[Capability, ...]:
    """A list as ``TORCH_CUDA_ARCH_LIST`` has it (``8.0;9.0+PTX``, also with commas or spaces), sorted.

    Raises:
        ConfigError: something in it is no capability; the message names ``source``.
    """
    architectures = set()
    for entry in re.split(r"[;,\s]+", text.strip()):
        for part in _NAMES.get(entry, entry).split(";"):
            match = _FORM.fullmatch(part)
            if match is None:
                names = ", ".join(_NAMES)
                raise ConfigError(
                    f"{source}: {entry!r} is no compute capability: write numbers as in '8.6;9.0+PTX' (names: {names})"
                )
            architectures.add(Capability(int(match[1]), int(match[2]), match[3], match[4] is not None))
    return tuple(sorted(architectures))


def format_architectures(architectures: Iterable[Capability]) -> str:
    """What :func:`parse_architectures` reads."""
    return ";".join(str(architecture) for architecture in architectures)


def covers(compiled: Sequence[Capability], wanted: Sequence[Capability]) -> bool:
    """Whether what was compiled for the first serves all of the second."""
    return all(any(code.serves(card) for code in compiled) for card in wanted)
