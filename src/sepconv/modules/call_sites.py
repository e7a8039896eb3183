"""Where a function gives what one module returns to another, and to nothing else.

Read from the function's source, whatever its control flow: ``x = self.norm(x)`` and, as the very
next statement, ``x = self.act(x)``; ``self.act(self.norm(x))``; and the loop of
`torch.nn.Sequential`. Nothing else can see what ``self.norm`` returns there, since nothing runs in
between and its only name is given away. A source that does not compile to the function's very code,
as after an edit, proves nothing.
"""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from types import CodeType
from typing import NamedTuple

__all__ = ["NEXT", "Site", "sites"]

#: The place of a module in the loop of a `torch.nn.Sequential`, and of the one after it.
NEXT = "the next"

_Position = tuple[int | None, int | None, int | None, int | None]

_SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ClassDef,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


class Site(NamedTuple):
    """A call whose result goes to one other call alone.

    Attributes:
        owner: the function's name for the module that has both.
        first: the attribute of the module that is called here; `NEXT` for any of a Sequential's.
        second: the attribute of the one that gets the result.
    """

    owner: str
    first: str
    second: str


def sites(code: CodeType) -> dict[int, Site]:
    """The calls of a function whose results go to one other call alone.

    Args:
        code: the function's.

    Returns:
        The calls, by the offset of the instruction (``frame.f_lasti`` while it runs).

    Example:
        >>> from torch import nn
        >>> set(sites(nn.Sequential.forward.__code__).values())
        {Site(owner='self', first='the next', second='the next')}
    """
    # By identity, since a code's own hash takes as long as a small operation.
    known = _known.get(id(code))
    if known is None:
        of_file = _sites_of_file(code.co_filename)
        found = of_file.get(code) if of_file else None
        if found is None:
            return {}
        known = _known.setdefault(id(code), (code, found))
    return known[1]


#: With the code itself, which keeps its identity from becoming another's.
_known: dict[int, tuple[CodeType, dict[int, Site]]] = {}


@lru_cache(maxsize=256)
def _sites_of_file(filename: str) -> dict[CodeType, dict[int, Site]]:
    """The sites of each function in a file that has some."""
    source = "".join(linecache.getlines(filename))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source, which were shown when it was imported
            module = compile(source, filename, "exec", dont_inherit=True)
            tree = ast.parse(source, filename)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    places: dict[_Position, Site] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            places.update(_places(node))
    found = {}
    for code in _codes(module):
        here = {
            2 * index: places[position]
            for index, position in enumerate(code.co_positions())
            if position in places
        }
        if here:
            found[code] = here
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _places(function: ast.FunctionDef) -> dict[_Position, Site]:
    """The sites of a function, by the place of the first call in the source."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    if not arguments or _is_bound_again(function, arguments[0].arg):
        return {}
    owner, shared = arguments[0].arg, _declared(function)
    found = {}
    for node in _own(function):
        second, argument = _call(node, owner)
        first, _ = _call(argument, owner)
        if second is not None and first is not None and argument is not None:
            found[_position(argument)] = Site(owner, first, second)
    for suite in _suites(function.body):
        for one, other in pairwise(suite):
            if isinstance(one, ast.Assign) and (first := _call(one.value, owner)[0]) is not None:
                name = _only_name(one.targets)
                second = None if name in shared else _what_takes(other, name, owner)
                if second is not None:
                    found[_position(one.value)] = Site(owner, first, second)
        for one in suite:
            if isinstance(one, ast.For) and (loop := _call_of_loop(one, owner)) is not None:
                found[_position(loop)] = Site(owner, NEXT, NEXT)
    return found


def _is_bound_again(function: ast.FunctionDef, name: str) -> bool:
    """Whether a function, or one within it, may give a name another meaning."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load):
            return True
        # Of definitions, imports, exceptions and patterns.
        if name in (getattr(node, field, None) for field in ("name", "asname", "rest")):
            return True
    return name in _declared(function)


def _declared(function: ast.FunctionDef) -> set[str]:
    """Names that others than the function may see, too."""
    return {
        name
        for node in ast.walk(function)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What lies in a function, but for what lies in a scope of its own."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _SCOPES):
            yield child
            yield from _own(child)


def _suites(body: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """The statements that follow each other, but where an exception may be caught between them."""
    yield body
    for statement in body:
        if isinstance(statement, ast.If | ast.For | ast.While):
            yield from _suites(statement.body)
            yield from _suites(statement.orelse)


def _call(node: ast.AST | None, owner: str) -> tuple[str | None, ast.expr | None]:
    """The attribute and the argument of ``owner.attribute(argument)``; else None."""
    if (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Starred)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == owner
    ):
        return node.func.attr, node.args[0]
    return None, None


def _only_name(targets: list[ast.expr]) -> str | None:
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _what_takes(statement: ast.stmt, name: str | None, owner: str) -> str | None:
    """The attribute of the owner's that a statement calls first, with a name that it gives away."""
    keeps = isinstance(statement, ast.Assign) and _only_name(statement.targets) != name
    if keeps or not isinstance(statement, ast.Assign | ast.Return):
        return None
    value = statement.value
    if name is None or value is None or name == owner:
        return None
    uses = [node for node in ast.walk(value) if isinstance(node, ast.Name) and node.id == name]
    while isinstance(value, ast.Call) and value.args:
        attribute, argument = _call(value, owner)
        if attribute is not None and isinstance(argument, ast.Name) and argument.id == name:
            return attribute if len(uses) == 1 else None
        # A call within a call, of something that is looked up before it.
        outer = value.func
        while isinstance(outer, ast.Attribute):
            outer = outer.value
        if not isinstance(outer, ast.Name):
            return None
        value = value.args[0]
    return None


def _call_of_loop(loop: ast.For, owner: str) -> ast.Call | None:
    """The call in ``for module in owner: x = module(x)``."""
    if not (
        isinstance(loop.iter, ast.Name)
        and loop.iter.id == owner
        and isinstance(loop.target, ast.Name)
        and len(loop.body) == 1
        and isinstance(loop.body[0], ast.Assign)
    ):
        return None
    statement, module = loop.body[0], loop.target.id
    name, call = _only_name(statement.targets), statement.value
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == module
        and len(call.args) == 1
        and not call.keywords
        and isinstance(call.args[0], ast.Name)
        and call.args[0].id == name
        and name not in (None, module, owner)
    ):
        return call
    return None


def _position(node: ast.expr) -> _Position:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
