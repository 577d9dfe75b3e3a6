"""No setting without effect: every field of the schema is read by code outside configs/.

What is a config is told by annotations (of arguments, variables and class attributes) and by
assignments from such. A property or method of the schema counts for the fields it reads as soon as
something outside reads or calls it.
"""

import ast
import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest

from configs.corpus import Corpus
from configs.schema import Config

REPOSITORY = Path(__file__).resolve().parents[2]
FLOORS = ("model", "data", "parallel", "train")


def config_classes(kind: Any) -> dict[str, Any]:
    """A config class and those of its sections and tuples, by name."""
    found = {kind.__name__: kind}
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if inspect.isclass(inner) and dataclasses.is_dataclass(inner):
                found |= config_classes(inner)
    return found


CLASSES = config_classes(Config) | config_classes(Corpus)
MODULES = [ast.parse(path.read_text()) for f in FLOORS for path in (REPOSITORY / f).rglob("*.py")]


def attribute_classes(classes: set[str], modules: list[ast.Module]) -> dict[tuple[str, str], str]:
    """Which attributes are configs: ("Config", "model") -> "Model", and those of any other class.

    Goes by the annotations in class bodies; the schema's classes are recognised by their names.
    """
    schema = [ast.parse(inspect.getsource(kind)) for kind in CLASSES.values()]
    return {
        (node.name, ast.unparse(field.target)): kind
        for module in (*schema, *modules)
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and (kind := named_in(field.annotation, classes))
    }


def named_in(annotation: ast.expr | None, classes: set[str]) -> str | None:
    """The class that an annotation such as `schema.Model | None` names, if it is one of these."""
    nodes = ast.walk(annotation) if annotation else ()
    names = {getattr(node, "id", getattr(node, "attr", None)) for node in nodes}
    return next(iter(names & classes), None)


class Reads(ast.NodeVisitor):
    """Collects which attributes of which config class some code reads."""

    def __init__(self, modules: list[ast.Module]) -> None:
        self.attributes = attribute_classes(set(CLASSES), modules)
        self.classes = set(CLASSES) | {owner for owner, _ in self.attributes}
        self.known: dict[str, str] = {}  # an expression, as source -> its class
        self.found: set[tuple[str, str]] = set()  # class, attribute
        for module in modules:
            self.visit(module)

    def class_of(self, node: ast.expr) -> str | None:
        inferred = None
        if isinstance(node, ast.Attribute):
            inferred = self.attributes.get((self.class_of(node.value) or "", node.attr))
        return inferred or self.known.get(ast.unparse(node))

    def learn(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, its_value in zip(target.elts, value.elts, strict=False):
                self.learn(one, its_value)
        elif kind := self.class_of(value):
            self.known[ast.unparse(target)] = kind

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.class_of(node.value)
        if owner and isinstance(node.ctx, ast.Load):
            self.found.add((owner, node.attr))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self.learn(target, node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outside = dict(self.known)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            if argument.arg != "self":
                self.known.pop(argument.arg, None)
            if kind := named_in(argument.annotation, self.classes):
                self.known[argument.arg] = kind
        self.generic_visit(node)
        own = {key: kind for key, kind in self.known.items() if key.startswith("self.")}
        self.known = outside | own  # what __init__ assigned to self, the other methods know

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside = dict(self.known)
        self.known["self"] = node.name
        self.generic_visit(node)
        self.known = outside


def reads_within_schema() -> dict[tuple[str, str], set[tuple[str, str]]]:
    """What each public property and method of the schema reads of its own class."""
    found = {}
    for name, kind in CLASSES.items():
        for method in ast.walk(ast.parse(inspect.getsource(kind))):
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                alone = ast.parse(f"class {name}: pass")
                alone.body[0].body = [method]  # type: ignore[attr-defined]
                found[name, method.name] = Reads([alone]).found
    return found


def with_schema(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """These reads and those that the schema makes on their behalf."""
    within = reads_within_schema()
    while more := {inner for read in found for inner in within.get(read, ())} - found:
        found = found | more
    return found


@pytest.fixture(scope="module")
def reads() -> set[tuple[str, str]]:
    return with_schema(Reads(MODULES).found)


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_is_read(name, reads):
    settings = {field.name for field in dataclasses.fields(CLASSES[name])}
    unread = settings - {attribute for owner, attribute in reads if owner == name}
    assert not unread, f"no code outside configs/ reads these settings of {name}"


def test_the_check_sees_reads_and_nothing_else():
    module = """
class Run:
    settings: schema.Config

class Block:
    config: Model | None

    def __init__(self, given: Optimizer):
        self.kept = given

    def use(self, other: Any, config: Batch):
        m, b = self.config, config
        m.width, b.size_at(3), other.layers, self.kept.beta1
        config.size = 3

def use(config, run: Run):
    config.steps, run.settings.data.path
"""
    found = {read for read in Reads([ast.parse(module)]).found if read[0] in CLASSES}
    assert found == {
        ("Model", "width"),
        ("Batch", "size_at"),
        ("Optimizer", "beta1"),
        ("Config", "data"),
        ("Data", "path"),
    }
    assert with_schema({("Batch", "size_at")}) == {
        ("Batch", "size_at"),
        ("Batch", "size"),
        ("Batch", "ramp"),
    }
