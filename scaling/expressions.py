"""Small expressions over the columns of a table: arithmetic, comparison, and, or, not.

    loss < 3.4 and N >= 20M      tokens * 1e9      `Training FLOP` / (6 * N)      dataset == "rw"

Python's grammar is parsed and a few of its nodes are computed; nothing is executed. A name that is
no identifier stands in backticks, dots belong to names, and K, M, B and T after a number are 1e3,
1e6, 1e9 and 1e12. `bits` is ln 2, the nats in a bit.
"""

import ast
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from configs.schema import InputError

SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
CONSTANTS = {"bits": math.log(2)}
_FUNCTIONS: dict[str, Any] = {
    "abs": np.abs,
    "exp": np.exp,
    "finite": np.isfinite,
    "log": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
}
_ARITHMETIC: dict[type, Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_COMPARISON: dict[type, Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
# A name in backticks, a text in quotes, or a number with a suffix that ends a word.
_TOKEN = re.compile(
    r"`(?P<name>[^`]*)`|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?<![\w.])(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?)(?P<suffix>[KMBT])\b"
)

Column = Callable[[str], Any]  # the values of a name


def evaluate(expression: str, numbers: Column, texts: Column | None = None) -> np.ndarray:
    """The value of an expression for every row: float64 or bool [rows], or a scalar.

    `numbers` gives the float64 values of a name (CONSTANTS are such names), `texts` the texts to
    compare with one in quotes. Raises InputError for what is no expression.
    """
    tree, names = _parse(expression)

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() as number):
                return number
            case ast.Name() | ast.Attribute():
                return numbers(_name(node, names))
            case ast.UnaryOp(op=ast.USub()):
                return np.negative(value(node.operand))
            case ast.UnaryOp(op=ast.Not()):
                return np.logical_not(value(node.operand))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return _ARITHMETIC[type(node.op)](value(node.left), value(node.right))
            case ast.BoolOp():
                both = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                result = value(node.values[0])
                for part in node.values[1:]:
                    result = both(result, value(part))
                return result
            case ast.Compare():
                return compare(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
                name in _FUNCTIONS
            ):
                return _FUNCTIONS[name](value(argument))
        raise InputError(
            f"'{expression}': {ast.unparse(node)} is not understood; use + - * / **, comparisons, "
            f"and, or, not, and {', '.join(_FUNCTIONS)}"
        )

    def compare(node: ast.Compare) -> Any:
        sides = [node.left, *node.comparators]
        result: Any = True
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            if _is_text(left) or _is_text(right):
                part = compare_text(left, operator, right)
            elif type(operator) in _COMPARISON:
                part = _COMPARISON[type(operator)](value(left), value(right))
            else:
                raise InputError(f"'{expression}': {ast.unparse(node)} is not understood")
            result = np.logical_and(result, part)
        return result

    def compare_text(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Any:
        name, constant = (right, left) if _is_text(left) else (left, right)
        known = isinstance(operator, ast.Eq | ast.NotEq) and texts is not None
        if not known or not isinstance(name, ast.Name | ast.Attribute):
            raise InputError(f"'{expression}': a text is compared with a column, by == or !=")
        assert texts is not None
        assert isinstance(constant, ast.Constant)
        return (texts(_name(name, names)) == constant.value) == isinstance(operator, ast.Eq)

    with np.errstate(all="ignore"):
        return np.asarray(value(tree))


def conjuncts(expression: str) -> list[str]:
    """The parts of an expression that `and` joins at its top, as they were written."""
    tree, names = _parse(expression)
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    texts = [ast.unparse(part) for part in parts]
    for short, name in names.items():
        texts = [text.replace(short, f"`{name}`") for text in texts]
    return texts


def _parse(expression: str) -> tuple[ast.expr, dict[str, str]]:
    """The tree, and the names that stood in backticks by the identifiers that replace them."""
    names: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        if match["name"] is not None:
            short = f"_name{len(names)}_"
            names[short] = match["name"]
            return short
        if match["number"] is not None:
            return repr(float(match["number"]) * SUFFIXES[match["suffix"]])
        return match["text"]

    try:
        tree = ast.parse(_TOKEN.sub(plain, expression.strip()), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"'{expression}' is no expression: write comparisons as ==, <, >=, join them with and, "
            f"or, not, and put names with spaces or signs in backticks"
        ) from error
    return tree, names


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _name(node: ast.expr, names: dict[str, str]) -> str:
    """The name of a column: an identifier, several joined by dots, or what was in backticks."""
    return ".".join(names.get(part, part) for part in ast.unparse(node).split("."))
