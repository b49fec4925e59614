"""Jinja2 for plans: strict, sandboxed, and unable to hang or to fill the memory.

Jinja2's own sandbox keeps templates away from Python's insides but not from ``'a' * 10**9`` or a nest of loops. Here
a template may only use the nodes, filters, tests and methods listed below; every loop turn is counted, every text
that grows is measured before it is made, and a clock stops what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import StrictUndefined, Undefined, UndefinedError, nodes, pass_context
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import missing

from plans.filters import FILTERS, MAX_TEXT, TemplateRefused, as_text, check_size, concatenate, flat

MAX_SOURCE = 128 * 1024
MAX_OUTPUT = 256 * 1024
MAX_TEMPLATE_NODES = 5_000
MAX_TEMPLATE_DEPTH = 40
MAX_TURNS = 20_000
"""Loop turns in one rendering, nested loops counted in full."""
MAX_SECONDS = 2.0

_ALLOWED_NODES = (
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Pos,
    nodes.Test,
    nodes.Filter,
    nodes.Concat,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Mod,
    nodes.List,
    nodes.Tuple,
    nodes.Keyword,
    nodes.Assign,
    nodes.Call,
)
_ALLOWED_TESTS = ("defined", "undefined", "none", "string", "number", "boolean", "mapping", "in", "eq", "ne", "sameas")
_ALLOWED_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset({"items", "keys", "values", "get"}),
    str: frozenset({"startswith", "endswith", "upper", "lower", "strip", "split", "removeprefix", "removesuffix"}),
}


class UnknownName(UndefinedError):
    """A template used a name that its context does not have."""

    def __init__(self, message: str, name: str, owner: Any) -> None:
        super().__init__(message)
        self.name = name
        self.owner = owner
        """What was asked for the name; ``missing`` for a variable."""


class _Unknown(StrictUndefined):
    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = None) -> None:
        del exc
        super().__init__(hint, obj, name, lambda message: UnknownName(str(message), name or "", obj))  # type: ignore[arg-type]


class PlanTemplates(SandboxedEnvironment):
    """The environment of one rendering: it holds that rendering's budget, so it is never shared."""

    def __init__(self) -> None:
        super().__init__(undefined=_Unknown, keep_trailing_newline=True, optimized=False, cache_size=0)
        self.intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
        self._turns = 0
        self._deadline = time.monotonic() + MAX_SECONDS
        self.finalize = _printable
        self.globals = {"range": _small_range}
        self.filters = {name: self._watched(function) for name, function in FILTERS.items()}
        self.filters |= {"__concat": self._watched(concatenate), "__flat": self._watched(flat), "__turn": self._turn}
        self.tests = {name: self.tests[name] for name in _ALLOWED_TESTS}

    def check(self, source: str) -> nodes.Template:
        """Parse a template, refuse what it may not use, and put the counters in."""
        if len(source) > MAX_SOURCE:
            raise TemplateRefused(f"the template is longer than {MAX_SOURCE} characters")
        tree = self.parse(source)
        self._refuse_what_is_not_allowed(tree)
        return _with_counters(tree, self)

    def is_safe_callable(self, obj: Any) -> bool:
        if obj is _small_range:
            return True
        if not isinstance(obj, BuiltinMethodType | MethodType):
            return False
        return obj.__name__ in _ALLOWED_METHODS.get(type(obj.__self__), frozenset())

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        del context
        if operator == "+":
            check_size(left, right)
        elif not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TemplateRefused(f"'{operator}' is for numbers only")
        result = self.binop_table[operator](left, right)
        if isinstance(result, int) and abs(result) >= 2**63:
            raise TemplateRefused("a number became too large")
        return result

    def _refuse_what_is_not_allowed(self, tree: nodes.Template) -> None:
        waiting: list[tuple[nodes.Node, int]] = [(child, 1) for child in tree.iter_child_nodes()]
        seen = 0
        while waiting:
            node, depth = waiting.pop()
            seen += 1
            if seen > MAX_TEMPLATE_NODES or depth > MAX_TEMPLATE_DEPTH:
                raise TemplateRefused("the template is too long or too deeply nested", node.lineno)
            kind = type(node).__name__
            if not isinstance(node, _ALLOWED_NODES):
                raise TemplateRefused(f"'{kind.lower()}' is not available in plans", node.lineno)
            if isinstance(node, nodes.For) and node.recursive:
                raise TemplateRefused("recursive loops are not available in plans", node.lineno)
            if isinstance(node, nodes.Call | nodes.Filter | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
                raise TemplateRefused("'*' and '**' arguments are not available in plans", node.lineno)
            if isinstance(node, nodes.Name) and node.name.startswith("_"):
                raise TemplateRefused(f"names that begin with '_' are not available: '{node.name}'", node.lineno)
            if isinstance(node, nodes.Filter) and node.name not in FILTERS:
                raise UnknownFilter(node.name, node.lineno)
            waiting.extend((child, depth + 1) for child in node.iter_child_nodes())

    @pass_context
    def _turn(self, context: Any, _: str) -> str:
        del context
        self._turns += 1
        if self._turns > MAX_TURNS:
            raise TemplateRefused(f"the loops of the template turn more than {MAX_TURNS} times")
        self._mind_the_clock()
        return ""

    def _mind_the_clock(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateRefused(f"rendering takes longer than {MAX_SECONDS:g} seconds")

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context  # keeps Jinja2 from calling it while it compiles
        def watched(context: Any, *arguments: Any, **options: Any) -> Any:
            del context
            self._mind_the_clock()
            try:
                result = function(*arguments, **options)
            except TypeError:
                raise TemplateRefused("a filter got the wrong arguments") from None
            if isinstance(result, str) and len(result) > MAX_TEXT:
                raise TemplateRefused("a value becomes too large")
            return result

        return watched


class UnknownFilter(TemplateRefused):
    """A template used a filter that plans do not have."""

    def __init__(self, name: str, line: int) -> None:
        super().__init__(f"unknown filter '{name}'", line)
        self.name = name


def bounded(pieces: Iterator[str]) -> str:
    """All pieces of a rendering in one text of at most :data:`MAX_OUTPUT` bytes."""
    parts: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece.encode("utf-8", "surrogatepass"))
        if size > MAX_OUTPUT:
            raise TemplateRefused(f"the rendered text is longer than {MAX_OUTPUT // 1024} KiB")
        parts.append(piece)
    return "".join(parts)


def _printable(value: Any) -> Any:
    """What may stand in the output: never ``None`` by accident, never Python's notation of a list."""
    if isinstance(value, Undefined):
        return value
    return as_text(value)


def _small_range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_TURNS:
        raise TemplateRefused(f"a range has more than {MAX_TURNS} numbers")
    return numbers


def _with_counters(tree: nodes.Template, environment: PlanTemplates) -> nodes.Template:
    """Count loop turns, and measure joined texts and written-out lists, by rewriting the tree from the leaves up."""
    order: list[nodes.Node] = [tree]
    for node in order:
        order.extend(node.iter_child_nodes())
    for node in reversed(order):
        for name, value in list(node.iter_fields()):
            if isinstance(value, list):
                setattr(node, name, [_counted(item) for item in value])
            else:
                setattr(node, name, _counted(value))
        if isinstance(node, nodes.For):
            turn = nodes.Filter(nodes.Const(""), "__turn", [], [], None, None, lineno=node.lineno)
            node.body.insert(0, nodes.Output([turn], lineno=node.lineno))
            if node.test is not None:
                counted = nodes.Filter(nodes.Const(""), "__turn", [], [], None, None, lineno=node.lineno)
                node.test = nodes.And(nodes.Not(counted, lineno=node.lineno), node.test, lineno=node.lineno)
    tree.set_environment(environment)
    return tree


def _counted(value: Any) -> Any:
    if isinstance(value, nodes.Concat):
        parts = nodes.List(value.nodes, lineno=value.lineno)
        return nodes.Filter(parts, "__concat", [], [], None, None, lineno=value.lineno)
    if isinstance(value, nodes.List) or (isinstance(value, nodes.Tuple) and value.ctx == "load"):
        return nodes.Filter(value, "__flat", [], [], None, None, lineno=value.lineno)
    return value
