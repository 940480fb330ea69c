"""The node behind `top --resctrl=fake`: it lives, and everything in it is true of a real one."""

from __future__ import annotations

import pytest

from nri_resctrl_plugin.demo.lively import LivelyNode
from nri_resctrl_plugin.top import Row, Watch
from resctrl import FsProvider, Resctrl, ResctrlConfig


class Observed:
    """The node, looked at in seconds of its own."""

    def __init__(self, seed: int = 1) -> None:
        self.seconds = 0.0
        self.node = LivelyNode(ResctrlConfig(), seed=seed)
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(self.node.fs)
        self.watch = Watch(resctrl, clock=lambda: int(self.seconds * 10**9))
        self.watch.look()

    def after(self, seconds: float) -> dict[str, Row]:
        """Let time pass; return the rows by name."""
        self.seconds += seconds
        self.node.live(seconds)
        return {row.name: row for row in self.watch.look().rows}


def test_it_moves() -> None:
    """Within a minute every pod's bandwidth changes, a pod comes and goes, and a counter stops telling."""
    observed = Observed()
    seen: dict[str, set[float | None]] = {}
    states = set()
    present = []
    for _ in range(60):
        rows = observed.after(1.0)
        present.append("pod_backup-job" in rows)
        states |= {row.state for row in rows.values()}
        for name, row in rows.items():
            seen.setdefault(name, set()).add(row.per_second("mbm_total_bytes"))
    assert {True, False} == set(present)
    assert {"ok", "new", "Unavailable 2/6"} <= states
    assert all(len(seen[name]) > 10 for name in seen if name.startswith("pod_"))
    assert not [value for values in seen.values() for value in values if value is not None and value < 0]


def test_sums_are_true() -> None:
    """A control group counts its pod, and the default group all below it, as the kernel does it."""
    rows = Observed().after(5.0)
    assert rows["gold"].per_second("mbm_total_bytes") == rows["gold/pod_postgres-0"].per_second(
        "mbm_total_bytes"
    )
    below = [row for name, row in rows.items() if "/" not in name and name not in {"(default)", "gold"}]
    total = sum(row.per_second("mbm_total_bytes") or 0.0 for row in below)
    assert rows["(default)"].per_second("mbm_total_bytes") == pytest.approx(total)


def test_it_is_the_same_each_time() -> None:
    """With the same seed the same things happen; with another one not."""

    def rates(seed: int) -> list[float | None]:
        return [row.per_second("mbm_total_bytes") for row in Observed(seed).after(7.3).values()]

    assert rates(1) == rates(1)
    assert rates(1) != rates(2)


def test_it_never_runs_out() -> None:
    """Ten minutes of pods that come and go use up neither RMIDs nor threads."""
    observed = Observed()
    for _ in range(20):
        rows = observed.after(30.0)
        assert 9 <= len(rows) <= 10
    assert observed.node.fs.free_rmids >= 32 - 12
