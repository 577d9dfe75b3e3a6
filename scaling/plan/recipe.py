"""A config as a recipe file: Python that builds it, with only what is not the usual."""

import dataclasses
from pathlib import Path
from typing import Any

from configs.schema import Config, Derived, InputError

_WIDTH = 100


def to_python(config: Config, says: str) -> str:
    """The source of a recipe whose get_config() returns `config`; `says` is its docstring.

    Settings that have their default, or that the config derived from others, are left out.
    """
    body = _source(config, 4, len("    return "))
    # Every class that is written out, among the names that configs.schema has.
    names = sorted({part for part in _classes(config) if f"{part}(" in body})
    imports = f"from configs.schema import {', '.join(names)}"
    if len(imports) > _WIDTH:
        listed = "".join(f"    {name},\n" for name in names)
        imports = f"from configs.schema import (\n{listed})"
    return (
        f'"""{says}"""\n\n{imports}\n\n\ndef get_config() -> Config:\n'
        f'    """The recipe, see above."""\n    return {body}\n'
    )


def write(path: Path, config: Config, says: str) -> None:
    """Write the recipe. Raises InputError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_python(config, says))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another place") from error


def _source(value: Any, indent: int, used: int) -> str:
    """`value` as Python at this indent, `used` columns of its line being taken already."""
    if isinstance(value, str):
        return _quoted(value)
    if dataclasses.is_dataclass(value):
        parts = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if not _usual(field, getattr(value, field.name))
        }
        items = [(f"{name}=", part) for name, part in parts.items()]
        opening, closing = f"{type(value).__name__}(", ")"
    elif isinstance(value, tuple):
        items = [("", part) for part in value]
        opening, closing = "(", ")"
    else:
        return repr(value)
    comma = "," if isinstance(value, tuple) and len(items) == 1 else ""
    short = ", ".join(name + _source(part, 0, 0) for name, part in items)
    line = f"{opening}{short}{comma}{closing}"
    if used + len(line) + 1 <= _WIDTH and "\n" not in line:
        return line
    inner = indent + 4
    lines = [
        f"{' ' * inner}{name}{_source(part, inner, inner + len(name))},\n" for name, part in items
    ]
    joined = ", ".join(name + _source(part, 0, 0) for name, part in items)
    if comma == "" and inner + len(joined) <= _WIDTH and "\n" not in joined:
        return f"{opening}\n{' ' * inner}{joined}\n{' ' * indent}{closing}"
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def _usual(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field need not be written: it would come out the same."""
    if isinstance(value, Derived):
        return True
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def _quoted(text: str) -> str:
    """A text in double quotes, as the formatter has it."""
    plain = repr(text)
    if plain.startswith('"') or '"' in text:
        return plain
    return f'"{plain[1:-1]}"'


def _classes(value: Any) -> set[str]:
    """Names of the dataclasses in a value."""
    if dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return {type(value).__name__}.union(*map(_classes, parts))
    return set().union(*map(_classes, value)) if isinstance(value, tuple) else set()
