import pytest

from el4ner.text.scripts import is_unspaced


@pytest.mark.parametrize("character", [*"上龍𠮷々〆〇ひカｶーㄅก๑ກកကབ"])
def test_letters_of_scripts_without_spaces(character: str) -> None:
    assert is_unspaced(character)


@pytest.mark.parametrize("character", [*"aÅжשعनক한ᄒ1٣０ａ", *" 。、・！་\u0e31\u0301", "", "上海"])
def test_other_scripts_signs_and_marks_are_not_letters_of_them(character: str) -> None:
    assert not is_unspaced(character)
