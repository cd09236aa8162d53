"""Sources of models, without models: what is found, refused, made once, and noticed when it is damaged."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from el4ner.errors import ModelError
from el4ner.models import catalogue, convert, prepare
from el4ner.models.catalogue import PackagedModel
from el4ner.models.digest import remembered_sha256, sha256_of
from el4ner.models.progress import Progress

PARTS = (b"first part, ", b"second part")


class Recorder:
    def __init__(self) -> None:
        self.labels: list[str] = []
        self.totals: list[int] = []
        self.advanced: list[int] = []
        self.open = 0

    def start(self, label: str, total: int) -> None:
        self.labels.append(label)
        self.totals.append(total)
        self.advanced.append(0)
        self.open += 1

    def advance(self, steps: int) -> None:
        self.advanced[-1] += steps

    def done(self) -> None:
        self.open -= 1


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A conversion that only notes what it was given."""
    seen: list[bytes] = []

    def fake(gguf: Path, folder: Path, progress: Progress) -> None:
        seen.append(gguf.read_bytes())
        progress.start("weights", 1)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "config.json").write_bytes(b"{}")
        progress.advance(1)
        progress.done()

    monkeypatch.setattr(convert, "convert", fake)
    return seen


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A packaged model in two parts; importing a package that carries one is an error."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    files = []
    for number, content in enumerate(PARTS):
        package = tmp_path / "site" / f"el4ner_test_part{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
        (package / "weights").write_bytes(content)
        files.append((package.name, "weights"))
    model = PackagedModel(
        name="test",
        kind="gguf",
        distribution="el4ner-test",
        files=tuple(files),
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        licence="none",
        parameters=1,
        purpose="member",
    )
    for module in (catalogue, prepare):
        monkeypatch.setattr(module, "CATALOGUE", {"test": model})
    return model


def test_a_packaged_model_is_made_once(model: PackagedModel, tmp_path: Path, conversions: list[bytes]) -> None:
    progress = Recorder()
    assert prepare.resolve("packaged:test", tmp_path / "cache") is None
    folder = prepare.prepare("packaged:test", tmp_path / "cache", progress)
    assert folder == tmp_path / "cache" / "models" / f"test-{model.sha256[:8]}-{prepare.FORMAT}"
    assert prepare.prepare("packaged:test", tmp_path / "cache") == folder
    assert prepare.resolve("packaged:test", tmp_path / "cache") == folder
    assert conversions == [b"".join(PARTS)]
    assert prepare.weights_digest(folder) == hashlib.sha256(b"weights").hexdigest()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert progress.open == 0
    assert progress.totals == progress.advanced
    assert all(label.startswith("test: ") for label in progress.labels)


def test_those_who_ask_at_once_wait_for_one_conversion(
    model: PackagedModel, tmp_path: Path, conversions: list[bytes]
) -> None:
    threads = [threading.Thread(target=prepare.prepare, args=("packaged:test", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1


def test_a_conversion_that_fails_leaves_nothing(
    model: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(gguf: Path, folder: Path, progress: Progress) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise ModelError("no")

    monkeypatch.setattr(convert, "convert", fails)
    with pytest.raises(ModelError):
        prepare.prepare("packaged:test", tmp_path)
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_cut_file_is_made_again(model: PackagedModel, tmp_path: Path, conversions: list[bytes]) -> None:
    folder = prepare.prepare("packaged:test", tmp_path)
    (folder / "model.safetensors").write_bytes(b"w")
    assert prepare.resolve("packaged:test", tmp_path) is None
    prepare.prepare("packaged:test", tmp_path)
    assert len(conversions) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_verify_reads_every_byte(model: PackagedModel, tmp_path: Path, conversions: list[bytes]) -> None:
    with pytest.raises(ModelError, match="not prepared"):
        prepare.verify("packaged:test", tmp_path)
    folder = prepare.prepare("packaged:test", tmp_path)
    progress = Recorder()
    prepare.verify("packaged:test", tmp_path, progress)
    assert progress.totals == progress.advanced
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    assert prepare.resolve("packaged:test", tmp_path) == folder
    with pytest.raises(ModelError, match=r"model\.safetensors: is damaged"):
        prepare.verify("packaged:test", tmp_path)


def test_weights_that_changed_are_not_handed_to_a_parser(
    model: PackagedModel, tmp_path: Path, conversions: list[bytes]
) -> None:
    folder = prepare.prepare("packaged:test", tmp_path)
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")  # as many bytes as before
    with pytest.raises(ModelError, match=r"model\.safetensors: is damaged.*delete"):
        prepare.prepare("packaged:test", tmp_path)
    assert len(conversions) == 1


def test_a_packaged_folder_is_the_one_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "el4ner_test_folder" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    known = PackagedModel(
        name="test",
        kind="folder",
        distribution="el4ner-test",
        files=((folder.parent.name, "model"),),
        sha256=hashlib.sha256(b"weights").hexdigest(),
        licence="none",
        parameters=1,
        purpose="embedder",
    )
    for module in (catalogue, prepare):
        monkeypatch.setattr(module, "CATALOGUE", {"test": known})
    assert prepare.prepare("packaged:test", tmp_path / "cache") == folder
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(ModelError, match=r"is damaged.*reinstall el4ner-test"):
        prepare.prepare("packaged:test", tmp_path / "cache")


def test_a_damaged_package_is_refused(model: PackagedModel, tmp_path: Path, conversions: list[bytes]) -> None:
    (model.locate()[1]).write_bytes(b"other")
    with pytest.raises(ModelError, match="is damaged"):
        prepare.prepare("packaged:test", tmp_path / "cache")
    assert conversions == []


def test_a_package_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name in catalogue.CATALOGUE:
        with pytest.raises(ModelError, match=r"install el4ner\[embedded\]"):
            prepare.prepare(f"packaged:{name}", tmp_path)
    assert not any(info.installed or info.prepared for info in prepare.list_models(tmp_path))


def test_an_unknown_packaged_model_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gemma3-270m"):
        prepare.prepare("packaged:nothing", tmp_path)


def test_the_list_tells_what_is_there(model: PackagedModel, tmp_path: Path, conversions: list[bytes]) -> None:
    (before,) = prepare.list_models(tmp_path)
    assert (before.installed, before.prepared, before.path) == (True, False, None)
    assert before.size_bytes == sum(map(len, PARTS))
    folder = prepare.prepare("packaged:test", tmp_path)
    (after,) = prepare.list_models(tmp_path)
    assert (after.prepared, after.path) == (True, folder)
    assert after.size_bytes > len(b"weights")


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        prepare.prepare(str(tmp_path), tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        prepare.prepare(str(tmp_path), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        prepare.prepare(str(tmp_path), tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert prepare.prepare(str(tmp_path), tmp_path) == tmp_path
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        prepare.prepare(str(tmp_path), tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        prepare.prepare(str(tmp_path / "nowhere"), tmp_path)


def test_a_hub_model_is_fetched_at_its_revision_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object, object]] = []

    def download(name: str, *, revision: object, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, revision, local_files_only))
        assert not any("bin" in pattern for pattern in allow_patterns)
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / "model.safetensors").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert prepare.prepare("org/name@abc123", tmp_path) == tmp_path
    assert prepare.prepare("org/name", tmp_path) == tmp_path
    assert prepare.resolve("org/name", tmp_path) == tmp_path
    assert asked == [("org/name", "abc123", False), ("org/name", None, False), ("org/name", None, True)]


def test_a_hub_that_is_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("We could not connect.\nTraceback, advice, and more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError, match="org/name: cannot be fetched") as caught:
        prepare.prepare("org/name", tmp_path)
    assert "\n" not in str(caught.value)
    assert prepare.resolve("org/name", tmp_path) is None
    monkeypatch.undo()
    with pytest.raises(ModelError, match="no hub id"):
        prepare.prepare("no such thing", tmp_path)


def test_the_cache_folder_follows_the_environment() -> None:
    assert prepare.default_cache_dir({"EL4NER_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert prepare.default_cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/el4ner")
    assert prepare.default_cache_dir({"HOME": "/h"}) == Path("/h/.cache/el4ner")


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = remembered_sha256(file, tmp_path / "cache")
    assert first == sha256_of(file)
    monkeypatch.setattr("el4ner.models.digest.sha256_of", lambda _: pytest.fail("read again"))
    assert remembered_sha256(file, tmp_path / "cache") == first
    monkeypatch.undo()
    file.write_bytes(b"other")
    assert remembered_sha256(file, tmp_path / "cache") != first
    for damaged in (b"{broken", b"[]", b"3"):
        (tmp_path / "cache" / "digests.json").write_bytes(damaged)
        assert remembered_sha256(file, tmp_path / "cache") == sha256_of(file)
