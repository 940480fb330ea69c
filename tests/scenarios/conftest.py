"""Runs scenarios that are coroutines, each on a loop of its own and within a deadline."""

from __future__ import annotations

import asyncio
import inspect

import pytest

LONGEST = 180.0
"""Seconds after which a scenario hangs."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    body = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    asyncio.run(asyncio.wait_for(body, LONGEST))
    return True
