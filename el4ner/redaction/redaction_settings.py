"""``[redaction]``: what is taken out of texts, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from el4ner.config import UNSHOWN_INPUT, Section

__all__ = ["Action", "PatternKind", "RedactionRule", "RedactionSettings"]

Action = Literal["pseudonym", "surrogate", "mask", "keep"]
"""``pseudonym``: ``[person:9f2c4be01d77a3c5]``, the same for the same name. ``surrogate``: a made-up value of the type,
the same for the same name. ``mask``: ``[person]``. ``keep``: it stays."""
PatternKind = Literal["email", "card", "iban", "phone", "national_id"]
"""Personal data that is found by its form and its check digits."""

_Share = Annotated[float, Field(ge=0, le=1)]
_MIN_DIGITS: Final = 8
_WITH_KEYS: Final = frozenset({"pseudonym", "surrogate"})


def _rule(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


def _secret(value: Any) -> Any:
    # Checked before SecretStr does, whose error would show the value.
    if not isinstance(value, str | SecretStr):
        raise PydanticCustomError(UNSHOWN_INPUT, "expected text: put it in quotes")
    return value


def _readable(path: Path) -> Path:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("expected a file that exists and that this user may read")
    return path


class RedactionRule(Section):
    """What becomes of a type. ``"mask"`` is short for ``{ action = "mask" }``."""

    action: Action
    floor: _Share | None = None
    """Entities whose confidence is lower stay; None: as the more general rule says, and at last ``redaction.floor``."""
    parts: bool | None = None
    """Each word of an entity with several counts as one of its forms: of ``Ada Lovelace``, ``Lovelace`` too. None: as
    with ``floor``."""


Rule = Annotated[RedactionRule, BeforeValidator(_rule)]


class RedactionSettings(Section):
    """``[redaction]``. A type goes by ``pools.POOL.TYPE``, else by ``types.TYPE``, else by ``action``."""

    action: Action = "pseudonym"
    floor: _Share = 0.0
    parts: bool = False
    types: dict[str, Rule] = Field(default_factory=dict)
    pools: dict[str, dict[str, Rule]] = Field(default_factory=dict)
    patterns: tuple[PatternKind, ...] = ()
    """Personal data that is looked for by its form, beside what the models find; needs ``el4ner[redact]``."""
    phone_regions: Annotated[tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...], Field(min_length=1)] = (
        "US", "GB", "DE", "FR", "ES", "IT", "IN", "BR",
    )  # fmt: skip
    """Countries whose telephone numbers are known without the country's code."""
    join_short_forms: bool = True
    """A short form has the pseudonym of the one long form of its type that is removed from the document, too."""
    pseudonym_digits: Annotated[int, Field(ge=_MIN_DIGITS, le=64)] = 16
    """Hexadecimal digits of a pseudonym. See docs/redaction.md for how improbable two names with one are."""
    surrogate_locale: Annotated[str, Field(pattern="^[A-Za-z_]{2,16}$")] = "en_US"
    """Whose names surrogates are, by Faker's name of it."""
    keys: Annotated[SecretStr, BeforeValidator(_secret)] | None = None
    """``ID:KEY``, of which the first makes what is new; further ones, behind commas, are for what was made before."""
    keys_file: Annotated[Path, AfterValidator(_readable)] | None = None
    """A file with one ``ID:KEY`` a line. Nobody but its owner, and the group, may read it."""
    reversible: bool = False
    """The originals are kept too, encrypted, on a topic of their own."""
    metadata: tuple[str, ...] = ()
    """Keys of a document's metadata that are passed on as they are. Everything else of it is left out."""

    @model_validator(mode="after")
    def _keys_are_in_one_place(self) -> RedactionSettings:
        if self.keys is not None and self.keys_file is not None:
            raise ValueError("keys and keys_file are both set: leave one of them out")
        return self

    @property
    def needs_keys(self) -> bool:
        """Whether anything is to be done for which there has to be a key."""
        return self.reversible or bool(self._actions & _WITH_KEYS)

    @property
    def has_surrogates(self) -> bool:
        """Whether anything is replaced by made-up values."""
        return "surrogate" in self._actions

    @property
    def _actions(self) -> set[Action]:
        rules = [*self.types.values(), *(rule for types in self.pools.values() for rule in types.values())]
        return {self.action, *(rule.action for rule in rules)}

    @property
    def is_configured(self) -> bool:
        """Whether anybody has said anything about redaction."""
        return bool(self.model_fields_set)

    def masked(self) -> RedactionSettings:
        """The same with masks in place of pseudonyms and surrogates, for which no key is needed."""

        def rules(of_types: dict[str, RedactionRule]) -> dict[str, RedactionRule]:
            return {name: rule.model_copy(update={"action": _masked(rule.action)}) for name, rule in of_types.items()}

        update = {
            "action": _masked(self.action),
            "types": rules(self.types),
            "pools": {pool: rules(of_types) for pool, of_types in self.pools.items()},
            "reversible": False,
        }
        return self.model_copy(update=update)

    def rule(self, pool: str | None, name: str) -> RedactionRule:
        """What becomes of entities of the type ``name`` in a document of ``pool``, with its floor and its parts."""
        rules = [RedactionRule(action=self.action, floor=self.floor, parts=self.parts)]
        if of_type := self.types.get(name):
            rules.append(of_type)
        if of_pool := self.pools.get(pool, {}).get(name) if pool is not None else None:
            rules.append(of_pool)
        update = {key: value for rule in rules for key, value in rule if value is not None}
        return RedactionRule.model_validate(update)


def _masked(action: Action) -> Action:
    return "mask" if action in _WITH_KEYS else action
