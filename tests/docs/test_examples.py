"""The examples are short, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resctrl import Resctrl, ResctrlConfig, Tid
from resctrl.testing import FakeFs

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "docs" / "examples"
LONGEST: Final = 40


def example(name: str) -> ModuleType:
    """Load an example, as its user would run it but for its last lines."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lives(tid: int) -> bool:
    """Tell whether a thread lives, a zombie not counted."""
    try:
        return "State:\tZ" not in Path(f"/proc/{tid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_monitor_pid_is_short() -> None:
    """It fits on a page."""
    lines = (EXAMPLES / "monitor_pid.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST


def test_monitor_pid_follows_a_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each second, with rates from the second on; at the end the group is gone again."""
    kernel = FakeFs(alive=lives, limbo=1.0)
    resctrl = Resctrl.with_provider(kernel, ResctrlConfig(group_prefix="watch_"))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seconds = iter(range(3))

        def sleep(_: float) -> None:
            if next(seconds) < 2:
                kernel.move_bytes(Tid(process.pid), 5_000_000, local=1_000_000)
            else:
                process.kill()
                process.wait()

        monkeypatch.setattr(time, "sleep", sleep)
        example("monitor_pid").monitor(resctrl, process.pid)
    said = capsys.readouterr()
    first, second, third = map(json.loads, said.out.splitlines())
    assert first == {"llc_occupancy": 65536, "mbm_local_bytes": 0, "mbm_total_bytes": 0}
    assert (second["mbm_total_bytes"], third["mbm_total_bytes"]) == (5_000_000, 10_000_000)
    assert second["bytes_per_second"] > 0
    assert third["mbm_local_bytes"] == 2_000_000
    assert said.err == f"process {process.pid} has ended\n"
    assert resctrl.list_groups() == []
