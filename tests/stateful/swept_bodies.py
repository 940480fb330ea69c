"""Scenario bodies that go on after a fault: the same functions, without their claims.

Owns: the reading of the scenario files, what stands in for `assert` and `pytest.raises`, which exceptions are
the product's own. Must not know: faults, or what must hold after one.

Rules:
    1. Nothing of a body is left out: what a claim calls is called, only its verdict is nobody's.
    2. An exception that came through a frame of the product and is not one of its types is never tolerated.
       What comes of the body itself (an event that is not there, a group that an observer misses) is.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from attrs import frozen

import nri_resctrl_plugin
import resctrl
from nri_resctrl_plugin.errors import PluginError
from resctrl import ResctrlError
from tests import scenarios
from tests.worlds import FakeWorld, Machine, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Body", "Untyped", "bodies", "is_untyped"]

_PRODUCT: Final = tuple(
    f"{Path(package.__file__ or '').parent}/" for package in (resctrl, nri_resctrl_plugin)
)
_TEST_KIT: Final = f"{_PRODUCT[0]}testing/"
_SOON: Final = 0.3
"""Seconds to wait for what may never come after a fault."""


_LONGEST: Final = 5.0
"""Seconds after which a body hangs."""


class Untyped(BaseException):
    """The product raised something that is none of its types; no body may catch it."""


def is_untyped(error: BaseException) -> bool:
    """Tell whether an exception is none of the product's types."""
    return not isinstance(error, (ResctrlError, PluginError))


def _is_the_products(error: BaseException) -> bool:
    """Tell whether an exception came through the product's own code.

    Its test kit is none of it, nor is a mapping that has no such key.
    """
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        file, is_lookup = code.co_filename, code.co_name == "__getitem__"
        if file.startswith(_PRODUCT) and not file.startswith(_TEST_KIT) and not is_lookup:
            return True
        traceback = traceback.tb_next
    return False


@contextmanager
def tolerated() -> Iterator[None]:
    """Go on after an exception, unless the product must not raise it."""
    try:
        yield
    except Exception as error:
        if is_untyped(error) and _is_the_products(error):
            raise Untyped(repr(error)) from error


class _Raises:
    """Stands in for `pytest.raises`: whether and what is raised is nobody's claim."""

    def __init__(self, *_: object, **__: object) -> None:
        self.value: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.value = error
        return isinstance(error, Exception)


class _Lenient(ast.NodeTransformer):
    """Lets a body go on after each claim, and after each unpacking, which is a claim about a length."""

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        return _tolerant(ast.Expr(node.test))

    def visit_While(self, node: ast.While) -> ast.stmt:
        return node  # a claim in a loop is what ends it

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        unpacks = any(isinstance(target, ast.Tuple | ast.List) for target in node.targets)
        return _tolerant(node) if unpacks else node


def _tolerant(statement: ast.stmt) -> ast.stmt:
    call = ast.Call(ast.Name("_tolerated", ast.Load()), [], [])
    return ast.With([ast.withitem(call)], [statement])


@frozen
class Body:
    """One scenario with its parameters.

    Attributes:
        name: What pytest would call it, with its file.
        machine: The machine that it is about.
        holds: Whether it stops the plugin's worker on purpose, which therefore must be a thread.
        run: Runs it on a world.
    """

    name: str
    machine: Machine
    holds: bool
    run: Callable[[FakeWorld], None]


def bodies(parts: Mapping[str, object]) -> list[Body]:
    """Return every scenario.

    Args:
        parts: What stands in for names that the files use, if they do.
    """
    found = []
    for path in sorted(Path(scenarios.__path__[0]).glob("test_*.py")):
        for name, value in _loaded(path, parts).items():
            if name.startswith("test_") and isinstance(value, FunctionType):
                found += _with_parameters(f"{path.stem}::{name}", value)
    return found


def _loaded(path: Path, parts: Mapping[str, object]) -> dict[str, object]:
    tree = ast.fix_missing_locations(_Lenient().visit(ast.parse(path.read_text(encoding="utf-8"))))
    names: dict[str, object] = {"__name__": f"{scenarios.__name__}.{path.stem}", "_tolerated": tolerated}
    exec(compile(tree, str(path), "exec"), names)  # noqa: S102 - our own scenarios, without their claims
    own: dict[str, object] = {
        "pytest": SimpleNamespace(raises=_Raises, mark=pytest.mark, param=pytest.param),
        "eventually": partial(eventually, deadline=_SOON),
    }
    names.update({name: value for name, value in {**own, **parts}.items() if name in names})
    return names


def _with_parameters(name: str, function: FunctionType) -> list[Body]:
    marks = getattr(function, "pytestmark", [])
    machine = next((mark.args[0] for mark in marks if mark.name == "machine"), Machine.FULL)
    choices = [_choices(*mark.args) for mark in marks if mark.name == "parametrize"]
    holds = "Held" in function.__code__.co_names
    found = []
    for number, chosen in enumerate(itertools.product(*choices)):
        values = {key: value for each in chosen for key, value in each.items()}
        found.append(Body(f"{name}[{number}]", machine, holds, partial(_run, function, values)))
    return found


def _choices(names: str | tuple[str, ...], values: list[object]) -> list[dict[str, object]]:
    keys = [key.strip() for key in names.split(",")] if isinstance(names, str) else list(names)
    rows: list[Any] = [getattr(value, "values", value) for value in values]
    return [dict(zip(keys, row if len(keys) > 1 else _single(row), strict=True)) for row in rows]


def _single(row: object) -> tuple[object, ...]:
    return row if isinstance(row, tuple) and len(row) == 1 else (row,)


def _run(function: Callable[..., object], values: Mapping[str, object], world: FakeWorld) -> None:
    """Run a body to its end or to where it cannot go on."""
    with tolerated():
        outcome = function(world, **values)
        if inspect.iscoroutine(outcome):
            asyncio.run(_ending(outcome))


async def _ending(outcome: Coroutine[object, object, object]) -> None:
    """Run a body, and let it be wrong that it does not end."""
    try:
        async with asyncio.timeout(_LONGEST) as limit:
            await outcome
    except TimeoutError as error:
        if limit.expired():
            raise Untyped(f"it does not end within {_LONGEST} s") from error
        raise
