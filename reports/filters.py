"""`--filter` on rows: comparisons of their columns joined by and, or, not. It is read, and never executed."""

import ast
import io
import math
import operator
import tokenize
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.errors import ConfigError
from suite.schema import nearest

EXAMPLE = "method == 'wanda' and settings.sparsity == 0.5 and kl_mean_nats < 0.5"
WORDS = ("and", "or", "not", "in")
TEXTS, GROUPS = ("params", "tags"), ("metrics", "attributes")  # MLflow's prefixes; it keeps the first two as text
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def chosen(text: str, lines: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For which lines, values by column, a filter such as EXAMPLE holds.

    `name in (1, 2)` and `'part' in name` are comparisons, too, and `=` is taken for `==`. MLflow's prefixes may
    stand before a name: what `params.` and `tags.` precede is compared as text. A missing value equals nothing,
    differs from nothing, is below and above nothing. ConfigError for anything else.
    """
    wish = _Filter(text, list(dict.fromkeys(name for line in lines for name in line)))
    try:
        tree = wish.parsed()
        return [wish.holds(tree, line) for line in lines]
    except RecursionError:
        raise wish.wrong("it goes too deep") from None


@dataclass(frozen=True)
class _Filter:
    text: str
    names: Collection[str]

    def parsed(self) -> ast.expr:
        """The filter as a tree of Python's grammar."""
        try:
            tokens = tokenize.generate_tokens(io.StringIO(self.text.strip()).readline)
            return ast.parse(tokenize.untokenize([_as_python(*token[:2]) for token in tokens]), mode="eval").body
        except (SyntaxError, ValueError, tokenize.TokenError):
            raise self.wrong("it cannot be read") from None

    def holds(self, node: ast.expr, line: Mapping[str, Any]) -> bool:
        """Whether a comparison, or several of them, is true of a line; all parts are looked at."""
        match node:
            case ast.BoolOp(op=joined_by, values=parts):
                found = [self.holds(part, line) for part in parts]
                return all(found) if isinstance(joined_by, ast.And) else any(found)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return not self.holds(part, line)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                sides = [self._value(side, line) for side in (left, *rights)]
                return all([self._compared(op, *pair) for op, *pair in zip(ops, sides, sides[1:], strict=False)])
        raise self.wrong(f"{ast.unparse(node)} is no comparison")

    def _value(self, node: ast.expr, line: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(self._value(part, line) for part in parts)
            case ast.Name() | ast.Attribute():
                return self._column(ast.unparse(node), line)
        raise self.wrong(f"{ast.unparse(node)} is no name, number or text")

    def _column(self, name: str, line: Mapping[str, Any]) -> Any:
        prefix, _, rest = name.partition(".")
        column = rest if prefix in (*TEXTS, *GROUPS) else name
        if column not in self.names:
            raise self.wrong(
                f"the rows have no {column}.{nearest(column, list(self.names))} rows.csv has all names"
            )
        value = line.get(column)
        return str(value) if prefix in TEXTS and value is not None else value

    def _compared(self, op: ast.cmpop, a: Any, b: Any) -> bool:
        """Text and numbers are never equal, and neither is above the other."""
        if type(op) not in COMPARISONS:
            raise self.wrong("the comparisons are ==, !=, <, <=, >, >= and in")
        if _missing(a) or _missing(b):
            return False
        try:
            return COMPARISONS[type(op)](a, b)
        except TypeError:
            return False

    def wrong(self, why: str) -> ConfigError:
        """The one line for a filter that cannot be used."""
        return ConfigError(f"--filter is {self.text!r}: {why}; for files it is such as {EXAMPLE}")


def _as_python(kind: int, text: str) -> tuple[int, str]:
    """A word of SQL, which MLflow's filters are close to, as Python has it."""
    if kind == tokenize.NAME and text.lower() in WORDS:
        return kind, text.lower()
    return kind, "==" if (kind, text) == (tokenize.OP, "=") else text


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
