from __future__ import annotations

import asyncio
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.cli import main, memory
from nri_resctrl_plugin.cli import run as run_module
from nri_resctrl_plugin.config import ResctrlPluginConfig
from resctrl import FsProvider, Resctrl
from resctrl.testing import FakeFs

if TYPE_CHECKING:
    from pathlib import Path


def _fresh(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_that_is_left_out_cannot_be_imported_and_can_be_afterwards() -> None:
    """`without` hides a module for as long as it lasts, and no longer."""
    assert "this" not in sys.modules
    with memory.without("this"), pytest.raises(ModuleNotFoundError):
        __import__("this")
    assert "this" not in sys.modules


def test_a_module_that_is_loaded_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """`without` takes nothing away from a process that uses it."""
    loaded = types.ModuleType("loaded_before")
    monkeypatch.setitem(sys.modules, "loaded_before", loaded)
    with memory.without("loaded_before"):
        assert __import__("loaded_before") is loaded
    assert sys.modules["loaded_before"] is loaded


def test_the_program_loads_neither_tls_nor_coloured_tracebacks() -> None:
    """`run` loads without ssl, OpenSSL's hashes and rich, which are 10 MB of the bar of 40."""
    program = (
        "import sys; from nri_resctrl_plugin import cli; cli._command('run', (), None); "
        "print(sorted({'ssl', 'rich', '_ssl', '_hashlib'} & {*sys.modules}), 'asyncio' in sys.modules)"
    )
    assert _fresh(program) == "[] True"


def test_what_exists_is_kept_from_the_collector() -> None:
    """After `keep` the collector does not look at what existed before."""
    assert int(_fresh("import gc; from nri_resctrl_plugin.cli import memory; memory.keep(); "
                      "print(gc.get_freeze_count())")) > 1000  # fmt: skip


def test_holes_go_back_to_the_system() -> None:
    """What was freed between things that stay is resident no longer after `give_back`."""
    program = """
from nri_resctrl_plugin.cli import memory
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) // 1024
items = [bytes(10_000) for _ in range(6_000)]
items = items[::100]
before = resident()
memory.give_back()
print(before - resident())
"""
    assert int(_fresh(program)) > 40


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no malloc_trim nothing happens."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    memory.give_back()


def test_the_program_keeps_what_it_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` tells the collector before it serves."""
    kept: list[bool] = []
    monkeypatch.setattr(memory, "keep", lambda: kept.append(True))
    nowhere = f"--socket-path={tmp_path / 'nowhere'}"
    assert (
        main(["run", "--resctrl=fake", "--exit-on-disconnect", f"--events={tmp_path / 'e'}", nowhere]) == 75
    )
    assert kept == [True]


def test_memory_is_given_back_when_a_list_is_done_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program gives memory back once for each list of everything, when nothing is in flight any more."""
    given: list[bool] = []

    async def story() -> None:
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(FakeFs())
        async with run_module._Plugin.with_resctrl(ResctrlPluginConfig(), resctrl) as plugin:
            monkeypatch.setattr(memory, "give_back", lambda: given.append(plugin._driver._idle))
            for _ in range(2):
                await plugin.synchronize((), ())
                assert isinstance(plugin, run_module._Plugin)
                assert plugin._tidying is not None
                await plugin._tidying

    asyncio.run(story())
    assert given == [True, True]
