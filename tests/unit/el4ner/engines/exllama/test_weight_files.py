"""What weights take, from small safetensors files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import save_file

from el4ner.engines.exllama.weight_files import weight_bytes
from el4ner.errors import ModelError


def test_weights_are_counted_without_embeddings_and_vision_towers(tmp_path: Path) -> None:
    def half(*dims: int) -> np.ndarray[Any, Any]:
        return np.zeros(dims, dtype=np.float16)

    tensors = {
        "model.embed_tokens.weight": half(100, 8),
        "model.layers.0.mlp.up_proj.weight": half(8, 16),
        "vision_tower.vision_model.x": half(1000, 10),
        "model.norm.weight": np.zeros(8, dtype=np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert weight_bytes(tmp_path) == 8 * 16 * 2 + 8 * 2 + 100 * 8 * 2  # tied: the embeddings are the head
    save_file({**tensors, "lm_head.weight": half(100, 8)}, tmp_path / "model.safetensors")
    assert weight_bytes(tmp_path) == 8 * 16 * 2 + 8 * 2 + 100 * 8 * 2


def test_only_the_files_that_an_index_lists_are_counted_if_they_are_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"lm_head.weight": np.zeros((10, 10), dtype=np.float16)}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(orjson.dumps({"weight_map": {"lm_head.weight": "a.safetensors"}}))
    assert weight_bytes(tmp_path) == 200
    index.write_bytes(orjson.dumps({"weight_map": {"lm_head.weight": "of-another-model.safetensors"}}))
    assert weight_bytes(tmp_path) == 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": 1}\n',
        struct.pack("<Q", 100) + b"{",
    ],
)
def test_a_damaged_weights_file_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"is no safetensors file") as caught:
        weight_bytes(tmp_path)
    assert "\n" not in str(caught.value)
