"""What a mutant is: one operator, comparison, constant or name changed in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent / "dpgmm_dist"
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_PAIRS = (("min", "max"), ("minimum", "maximum"), ("floor", "ceil"), ("any", "all"))
NAMES = {name: exchanged for pair in _PAIRS for name, exchanged in (pair, pair[::-1])}
"""Names and attributes that are exchanged: the other way of rounding, the other bound."""


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    place: int
    """Which node of the module, in the order of `ast.walk`."""
    change: int
    """Which of the changes that the node allows."""
    function: int
    """First line of the function that it is in, 0 for code that runs at import."""
    lines: range
    """Of the statement that it is in, without the body of a loop or condition."""

    def build(self) -> tuple[CodeType, str]:
        """The changed module, and what was changed, for people."""
        path = PACKAGE / self.module
        tree = ast.parse(path.read_text())
        node: Any = next(n for i, n in enumerate(ast.walk(tree)) if i == self.place)
        before = ast.unparse(node)
        _apply(node, self.change)
        ast.fix_missing_locations(tree)
        text = f"{self.module}:{node.lineno}: {before}  ->  {ast.unparse(node)}"
        return compile(tree, str(path), "exec"), text


def mutants(module: str) -> Iterator[Mutant]:
    """All mutants of a module of the package."""
    tree = ast.parse((PACKAGE / module).read_text())
    left_out, functions, lines = _not_behaviour(tree), _functions(tree), _statements(tree)
    for place, node in enumerate(ast.walk(tree)):
        for change in range(0 if id(node) in left_out else _changes(node)):
            yield Mutant(module, place, change, functions.get(id(node), 0), lines[id(node)])


def _not_behaviour(tree: ast.Module) -> set[int]:
    """The nodes in types, which nothing evaluates, in decorators, and in what an error says."""
    found: set[int] = set()
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        parts += getattr(node, "decorator_list", [])
        parts += [node.exc] if isinstance(node, ast.Raise) else []
        found |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    return found


def _functions(tree: ast.Module) -> dict[int, int]:
    """For each node in the body of a function, the first line of the innermost one."""
    found: dict[int, int] = {}
    for node in ast.walk(tree):  # outer functions come before inner ones
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found |= {id(inner): first for part in node.body for inner in ast.walk(part)}
    return found


def _statements(tree: ast.Module) -> dict[int, range]:
    """For each node the lines of the innermost statement that it is in."""
    found: dict[int, range] = {}
    for node in ast.walk(tree):  # outer statements come before inner ones
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = max(node.lineno + 1, body[0].lineno) if body else (node.end_lineno or 0) + 1
            found |= {id(inner): range(node.lineno, end) for inner in ast.walk(node)}
    return found


def _changes(node: ast.AST) -> int:
    """How many ways there are to change a node."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        return int(type(node.op) in OPERATORS)
    if isinstance(node, ast.Compare):
        return sum(type(op) in OPERATORS for op in node.ops)
    if isinstance(node, ast.UnaryOp):
        return int(isinstance(node.op, ast.Not | ast.USub))
    if isinstance(node, ast.Constant):
        return int(type(node.value) in (int, float, bool))
    if isinstance(node, ast.Name):
        return int(node.id in NAMES)
    if isinstance(node, ast.Attribute):
        return int(node.attr in NAMES)
    return 0


def _apply(node: Any, change: int) -> None:
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        places = [i for i, op in enumerate(node.ops) if type(op) in OPERATORS]
        node.ops[places[change]] = OPERATORS[type(node.ops[places[change]])]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif isinstance(node, ast.UnaryOp):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        node.value = _other(node.value)
    elif isinstance(node, ast.Name):
        node.id = NAMES[node.id]
    else:
        node.attr = NAMES[node.attr]


def _other(value: float) -> float:
    """Another constant of the same type."""
    if isinstance(value, bool):
        return not value
    return value * 2 if value + 1 == value else value + 1  # beyond 2^53 one is too little


def replace(module: CodeType, functions: list[FunctionType]) -> int:
    """Give each of these functions its code in the changed module; returns how many changed.

    Whoever imported a function, decorated it or holds it in a class then calls the changed one.
    """
    codes, changed = _codes(module), 0
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno), old)
        if old.co_filename == module.co_filename and new != old:
            function.__code__ = new
            changed += 1
    return changed


def _codes(outer: CodeType) -> dict[tuple[str, int], CodeType]:
    """All code within this, by name and first line."""
    inner = [code for code in outer.co_consts if isinstance(code, CodeType)]
    found = {(code.co_qualname, code.co_firstlineno): code for code in inner}
    for code in inner:
        found |= _codes(code)
    return found
