"""Formulas of claims: arithmetic over named figures, nothing else.

`watts * rate / speed`, with + - * / **, parentheses, `min`, `max`, numbers and names.
"""

import ast
from collections.abc import Mapping

from locavore.core.errors import RequestError
from locavore.planner.audit_quantity import (
    Quantity,
    add,
    divide,
    largest,
    multiply,
    number,
    smallest,
    subtract,
)

_BINARY = {ast.Add: add, ast.Sub: subtract, ast.Mult: multiply, ast.Div: divide}
_CALLS = {"min": smallest, "max": largest}


def evaluate(formula: str, names: Mapping[str, Quantity]) -> Quantity:
    """The formula's value. Raises RequestError naming what it does not understand."""
    try:
        tree = ast.parse(formula, mode="eval").body
    except SyntaxError:
        raise RequestError(f"formula {formula!r} is not arithmetic") from None
    return _value(tree, names, formula)


def _value(node: ast.expr, names: Mapping[str, Quantity], formula: str) -> Quantity:
    match node:
        case ast.Constant(value=int() | float() as value):
            return number(float(value))
        case ast.Name(id=name):
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise RequestError(f"formula {formula!r} uses {name!r}; inputs are: {known}")
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names, formula), _value(right, names, formula))
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
            return _power(_value(left, names, formula), power)
        case ast.Call(func=ast.Name(id=call), args=args) if call in _CALLS:
            return _CALLS[call]([_value(a, names, formula) for a in args])
    raise RequestError(f"formula {formula!r} may use + - * / ** min max, numbers and inputs only")


def _power(q: Quantity, power: int) -> Quantity:
    result = number(1.0)
    for _ in range(power):
        result = multiply(result, q)
    return result


def spelled(formula: str, inputs: Mapping[str, str]) -> str:
    """The formula with the figures in place of the names, as a reader would check it."""
    tree = ast.parse(formula, mode="eval")

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            written = inputs.get(node.id)
            return ast.Name(id=f"({written})" if written and " " in written else written or node.id)

    return ast.unparse(Fill().visit(tree)).replace("**", "^")
