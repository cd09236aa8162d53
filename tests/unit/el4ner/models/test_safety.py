"""What a model's folder may hold, and that no code of ours could run what is in one."""

from __future__ import annotations

import ast
import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import el4ner
from el4ner.errors import ModelError
from el4ner.models.gguf_file import GgufFile
from el4ner.models.prepare import prepare
from el4ner.models.safety import PICKLED, check_folder
from el4ner.retrieval import SentenceTransformerEmbedder

ROOT = Path(el4ner.__file__).parents[1]
SOURCES = sorted(path for folder in ("el4ner", "workers", "bench", "docker") for path in (ROOT / folder).rglob("*.py"))
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "config.json").write_text("{}", encoding="utf-8")
    (made / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    (made / "model.safetensors").write_bytes(b"weights")
    write_modules(made, "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling")
    return made


def write_modules(folder: Path, *kinds: object) -> None:
    modules = [{"idx": index, "name": str(index), "path": "", "type": kind} for index, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


def test_safetensors_and_configurations_are_all_that_a_folder_needs(folder: Path) -> None:
    check_folder(folder)
    check_folder(folder, shared=True)
    write_modules(folder, "sentence_transformers.base.modules.transformer.Transformer")
    check_folder(folder)
    (folder / "modules.json").unlink()
    check_folder(folder)


@pytest.mark.parametrize("suffix", sorted(PICKLED | {".PT"}))
@pytest.mark.parametrize("place", ["", "1_Pooling"])
def test_a_pickle_anywhere_in_a_folder_is_refused(folder: Path, suffix: str, place: str) -> None:
    (folder / place / f"weights{suffix}").write_bytes(b"")
    with pytest.raises(ModelError, match=rf"weights\{suffix} is a pickle"):
        prepare(str(folder), folder.parent)


def test_a_pickle_of_another_program_is_passed_over_only_beside_safetensors(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")
    check_folder(folder, shared=True)
    (folder / "1_Pooling" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="is a pickle"):
        check_folder(folder, shared=True)


@pytest.mark.parametrize("name", ["weights.bin", "weights.pt", "weights.gguf", "weights.safetensors"])
def test_a_file_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match="is a pickle" if Path(name).suffix in PICKLED else "is a file"):
        prepare(str(tmp_path / name), tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_names_code_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}), encoding="utf-8")
    with pytest.raises(ModelError, match="auto_map"):
        check_folder(folder)


def test_code_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "1_Pooling" / "modeling.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(ModelError, match="never run"):
        check_folder(folder)


@pytest.mark.parametrize(
    "kind",
    [
        "os.system", "evil.Module", "sentence_transformers.models.Router", "sentence_transformers.models.Asym",
        "sentence_transformers.util.os.system", "xsentence_transformers.models.Pooling", "", None, 3,
        "sentence_transformers.models.Pooling\nos.system",
    ],
)  # fmt: skip
def test_a_module_that_could_load_code_is_refused_before_anything_is_imported(folder: Path, kind: object) -> None:
    """Versions of sentence-transformers before 6 import whatever a local folder names."""
    write_modules(folder, "sentence_transformers.models.Transformer", kind)
    with pytest.raises(ModelError, match="no module class"):
        SentenceTransformerEmbedder(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"3", b"[[]]", b"\xff"])
def test_a_configuration_that_cannot_be_read_is_a_model_error(folder: Path, content: bytes) -> None:
    (folder / "modules.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"modules\.json"):
        check_folder(folder)
    (folder / "modules.json").unlink()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        check_folder(folder)


def gguf(*, entries: int = 1, tensors: int = 0, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + body


KEY = struct.pack("<Q", 1) + b"k"
HOSTILE_GGUF = {
    "empty": b"",
    "cut": b"GGUF",
    "pickle": pickle.dumps({"weights": 1}),
    "endless string": gguf(body=struct.pack("<Q", 1 << 63)),
    "endless array": gguf(body=KEY + struct.pack("<IIQ", 9, 4, 1 << 62)),
    "endless array of strings": gguf(body=KEY + struct.pack("<IIQ", 9, 8, 1 << 62)),
    "arrays in arrays": gguf(body=KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5_000),
    "unknown kind": gguf(body=KEY + struct.pack("<I", 99)),
    "no text": gguf(body=struct.pack("<Q", 1) + b"\xff"),
    "endless shape": gguf(entries=0, tensors=1, body=KEY + struct.pack("<I", 0xFFFFFFFF)),
    "alignment of nought": gguf(body=struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)),
}


@pytest.mark.parametrize("name", HOSTILE_GGUF)
def test_a_hostile_gguf_header_is_a_model_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.gguf").write_bytes(HOSTILE_GGUF[name])
    with pytest.raises(ModelError):
        GgufFile(tmp_path / "x.gguf")


@given(st.binary(max_size=120))
def test_any_bytes_behind_a_gguf_header_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    path.write_bytes(gguf(entries=len(body) % 3, tensors=len(body) % 2, body=body))
    try:
        with GgufFile(path):
            pass
    except ModelError:
        pass


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_or_runs_a_models_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not UNPICKLERS & {name.split(".")[0] for name in names}, f"{path}:{node.lineno} imports {names}"
    for call, function in calls(tree):
        where = f"{path}:{call.lineno}: {function}"
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        assert function not in ("torch.load", "eval", "exec", "pd.read_pickle", "__import__"), where
        if function in ("np.load", "numpy.load"):
            assert is_literally(given.get("allow_pickle"), False), f"{where}: allow_pickle=False is missing"
        assert "trust_remote_code" not in given or is_literally(given["trust_remote_code"], False), where
        if function.endswith(".from_pretrained") or function == "SentenceTransformer":
            assert "trust_remote_code" in given, f"{where}: trust_remote_code=False is missing"
            assert is_literally(given.get("local_files_only"), True), f"{where}: local_files_only=True is missing"
        if function.startswith("AutoModel") and function.endswith(".from_pretrained"):
            assert is_literally(given.get("use_safetensors"), True), f"{where}: use_safetensors=True is missing"


def is_literally(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
