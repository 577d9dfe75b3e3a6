"""Changing settings of a config by text, such as "model.layers=12": typed, checked, and shown."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from configs.schema import InputError

ConfigT = TypeVar("ConfigT")


def keys(kind: Any) -> dict[str, Any]:
    """Every setting of a config class by its dotted name, with its type, section after section."""
    flat: dict[str, Any] = {}
    for name, type_ in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(type_):
            flat |= {f"{name}.{key}": inner for key, inner in keys(type_).items()}
        else:
            flat[name] = type_
    return flat


def apply(config: ConfigT, overrides: Sequence[str]) -> ConfigT:
    """A copy of the config with every "key=value" in place, all of them at once; prints old -> new.

    Sections are built anew, so their rules are checked and what they derive is derived again.
    Raises InputError for an unknown key, a value of the wrong type, or one that breaks a rule.
    """
    known = keys(type(config))
    changes: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if key not in known:
            raise InputError(f"--config.{key}: {_unknown(key, known)}")
        if not equals:
            raise InputError(f"--config.{key}: write the value as --config.{key}=VALUE")
        try:
            changes[key] = _parse(known[key], text)
        except ValueError as error:
            raise InputError(f"--config.{override}: {error}") from None
    changed = _replace(config, changes)
    for key in changes:
        print(f"config.{key}: {_get(config, key)} -> {_get(changed, key)}")
    return changed


def _replace(config: Any, changes: dict[str, Any]) -> Any:
    """dataclasses.replace with dotted names: a section is replaced once, with all its changes."""
    fields: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, dot, rest = key.partition(".")
        if dot:
            sections.setdefault(section, {})[rest] = value
        else:
            fields[key] = value
    for section, inner in sections.items():
        fields[section] = _replace(getattr(config, section), inner)
    return dataclasses.replace(config, **fields)


def _parse(type_: Any, text: str) -> Any:
    """The value that `text` spells in a field of this type; a ValueError says what would do."""
    arguments = typing.get_args(type_)
    if typing.get_origin(type_) is Literal:
        if text not in arguments:
            raise ValueError(f"choose one of {', '.join(arguments)}")
        return text
    if typing.get_origin(type_) is tuple:
        return _parse_tuple(arguments[0], text)
    if type_ is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("write true or false")
        return text.lower() == "true"
    if type_ is int:
        return _number(int, text, "a whole number")
    if type_ is float:
        return _number(float, text, "a number")
    return text


def _parse_tuple(item: Any, text: str) -> tuple:
    """Numbers as `128,128,0`, pairs of numbers as `100:8,200:16`, nothing as an empty text."""
    parts = text.split(",") if text else []
    if item is int:
        return tuple(_number(int, part, "whole numbers such as 128,128,0") for part in parts)
    if typing.get_args(item) == (int, int):
        expected = "pairs of whole numbers such as 100:8,200:16"
        pairs = [part.split(":") for part in parts]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"write {expected}")
        return tuple((_number(int, a, expected), _number(int, b, expected)) for a, b in pairs)
    raise ValueError("this setting has parts of its own: edit the recipe instead")


def _number(kind: type[int] | type[float], text: str, expected: str) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"write {expected}") from None
    if not math.isfinite(value):
        raise ValueError(f"write {expected}, and a finite one")
    return value


def _unknown(key: str, known: dict[str, Any]) -> str:
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"a section, not a setting; set one of {', '.join(inside)}"
    by_name = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = by_name or difflib.get_close_matches(key, known, n=1)
    return "no such setting" + (f"; did you mean {' or '.join(near)}?" if near else ", see --help")


def _get(config: object, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config
