"""The command line: one `main` for every command, recipes by path, and checked overrides.

A command that runs a recipe declares --config, and loads the recipe when it runs:

    _RECIPE = define_recipe(Config)

    def run() -> int | None:
        config = _RECIPE.load()  # with --config.model.layers=12 and its like in place

    if __name__ == "__main__":
        main(run, _RECIPE)

Overrides are taken out of the arguments before absl reads them: absl knows no flags of that name,
and ml_collections, which does, assigns to fields where a frozen config must be built and checked
anew.
"""

import dataclasses
import difflib
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from absl import app, flags, logging

from configs import overrides
from configs.corpus import Corpus
from configs.schema import Config, InputError

flags.disclaim_key_flags()  # --config belongs to the command that declares it, and to its --help

ConfigT = TypeVar("ConfigT", Config, Corpus)


class Recipe(Generic[ConfigT]):
    """What --config and --config.KEY=VALUE on the command line describe."""

    def __init__(self, kind: type[ConfigT], optional: bool) -> None:
        self.kind: type[ConfigT] = kind
        self.optional = optional
        self.changes: tuple[str, ...] = ()  # "model.layers=12", found by main()
        self._flag = flags.DEFINE_string("config", None, "the recipe: a file in configs/")

    @property
    def path(self) -> str | None:
        """The recipe's file, or None where --config was not given."""
        return self._flag.value

    def change(self, config: ConfigT) -> ConfigT:
        """A config that comes from elsewhere with the overrides in place, each of them printed."""
        return overrides.apply(config, self.changes)

    def load(self) -> ConfigT:
        """The recipe's config with the overrides in place, each of them printed."""
        if not self.path:
            raise InputError("no recipe: name one with --config=FILE, a file in configs/")
        config = load(self.path, self.changes)
        if not isinstance(config, self.kind):
            raise InputError(
                f"{self.path} describes a {type(config).__name__}, and this command needs "
                f"a {self.kind.__name__}: name another recipe"
            )
        return config


def define_recipe(kind: type[ConfigT], optional: bool = False) -> Recipe[ConfigT]:
    """Declare --config for a command whose recipes return a `kind`.

    Where it is optional, the command makes a config of its own and calls `change` on it.
    """
    return Recipe(kind, optional)


def main(run: Callable[[], int | None], recipe: Recipe | None = None) -> NoReturn:
    """Run a command and exit with what `run` returned (None: 0), or with 2 on an InputError.

    --help prints the docstring of the module that was started, its flags, and the settings of the
    recipe it takes.
    """
    arguments, changes = _split(sys.argv)
    if {"-h", "-help", "--help"} & set(arguments):
        print(_help(recipe))
        sys.exit(0)
    if recipe is not None:
        recipe.changes = changes

    def guarded(rest: Sequence[str]) -> int | None:
        try:
            if len(rest) > 1:
                raise InputError(f"{rest[1]}: settings are written --name=value, see --help")
            if changes and not (recipe and (recipe.path or recipe.optional)):
                raise InputError(f"--config.{changes[0]}: there is no --config=FILE to change")
            return run()
        except InputError as error:
            return _refuse(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130  # as a shell reports a process that SIGINT ended

    app.run(guarded, argv=arguments, flags_parser=_parse)
    raise AssertionError("app.run exits")


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """What absl shall read, and the overrides without their leading `--config.`."""
    own = re.compile(r"--?config\.")
    rest = [argument for argument in arguments if not own.match(argument)]
    return rest, tuple(own.sub("", a, count=1) for a in arguments if own.match(a))


def _parse(arguments: Sequence[str]) -> list[str]:
    """Absl's flags, with its refusals in the form of ours."""
    try:
        rest = flags.FLAGS(arguments)
    except flags.Error as error:
        sys.exit(_refuse(error))
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # where app.run would choose INFO
    return rest


def _refuse(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _help(recipe: Recipe | None) -> str:
    text = (sys.modules["__main__"].__doc__ or "").strip()
    text += "\n\nFlags:\n" + flags.FLAGS.main_module_help().partition("\n")[2].strip("\n")
    if recipe:
        text += "\n\nSettings of a recipe, each to be changed with --config.KEY=VALUE:\n"
        text += _settings(recipe.kind)
    return text


def _settings(kind: Any, prefix: str = "") -> str:
    """The settings of a config class as its source states them, those of its sections last."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    sections = {name: type_ for name, type_ in types.items() if dataclasses.is_dataclass(type_)}
    stated = re.findall(r"^    (\w+)(: .*)$", inspect.getsource(kind), flags=re.MULTILINE)
    lines = [f"  {prefix}{name}{rest}" for name, rest in stated if name not in sections]
    inner = [_settings(type_, f"{prefix}{name}.") for name, type_ in sections.items()]
    return "\n".join(lines + inner)


def load(path: str, changes: Sequence[str] = ()) -> Config | Corpus:
    """Execute a recipe file's get_config() and apply changes such as "model.layers=12".

    Raises InputError where the file is missing or fails, a change names no setting, or its value
    has the wrong type or breaks a rule of the schema.
    """
    return overrides.apply(_execute(Path(path)), changes)


def _execute(path: Path) -> Config | Corpus:
    """What the recipe's get_config() returns."""
    if not path.is_file():
        near = difflib.get_close_matches(str(path), map(str, path.parent.glob("*.py")), n=1)
        raise InputError(f"{path}: no such recipe" + (f"; did you mean {near[0]}?" if near else ""))
    if path.suffix != ".py":
        raise InputError(f"{path}: a recipe is a Python file, NAME.py")
    try:
        definitions = runpy.run_path(str(path))
        if "get_config" not in definitions:
            raise InputError("a recipe defines get_config(), and this file does not")
        config = definitions["get_config"]()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f", line {f.lineno}" for f in reversed(frames) if f.filename == str(path)), "")
        raise InputError(f"{path}{line}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config | Corpus):
        raise InputError(f"{path}: get_config() must return a Config or a Corpus")
    return config
