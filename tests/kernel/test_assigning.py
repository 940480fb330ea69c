"""Threads are moved with next to no system calls: `benchmarks/bench_assign.py` on a real kernel, counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import bench_assign as bench
from tests.kernel.guest import GuestConfig

if TYPE_CHECKING:
    from tests.kernel.conftest import Boot
    from tests.kernel.image import Image


@pytest.mark.timeout(600)
def test_a_thousand_threads_take_four_system_calls(image: Image, boot: Boot, tmp_path: Path) -> None:
    """1,000 live threads: one open, two writes, one close, where the classic loop makes three a thread."""
    script = Path(bench.__file__).resolve()
    # Ids of five digits, as on a machine that has been up for a while: then the list is longer than a page.
    line = "echo 20000 > /proc/sys/kernel/ns_last_pid; "
    line += f"{sys.executable} {script} --inside /vmjob/found.json --counts"
    run = boot(line, GuestConfig(memory_mib=1024), limit=500, job=tmp_path)
    assert run.status == 0, f"{run.reason}\n{run.text}\n{run.errors.decode(errors='replace')}\n{run.console}"
    found = bench.Found(**json.loads((tmp_path / "found.json").read_text(encoding="ascii")))
    assert found.asked == {"write_all": 1, "write": 2}
    assert found.calls, "strace is not installed, on the machine whose programs a guest runs"
    assert found.calls[bench.OURS] == {"openat": 1, "write": 2, "close": 1}
    assert found.calls[bench.CLASSIC] == {"openat": 1000, "write": 1000, "close": 1000}
    reconcile = found.calls[bench.RECONCILE]
    assert reconcile["write"] == 2
    assert found.total(bench.RECONCILE) <= bench.MOST_CALLS_PER_THREAD * bench.TRACED
