"""A node that is never still, in memory: for `top --resctrl=fake`.

Owns: the pods, what they do, and their time. Must not know: who looks.

Rules:
    1. The groups are made, filled and deleted by the library, and counted by the fake kernel: nothing of what
       is shown is made up beside them.
    2. Time passes only in `live`, so that a test can look at any moment of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, field, frozen

from resctrl import Resctrl, ResctrlConfig, Tid
from resctrl.testing import FakeFs

__all__ = ["LivelyNode"]

_MIB: Final = 1024 * 1024
_MB: Final = 1_000_000
_CACHE: Final = 32 * _MIB
_DOMAINS: Final = (0, 1)
_NUM_RMIDS: Final = 32
_STEP: Final = 0.1
"""Seconds in which the work does not change."""


@frozen
class _Workload:
    """What a pod does.

    Attributes:
        uid: The pod.
        threads: How many.
        megabytes: A second, at most.
        cache: Share of the cache, at most.
        period: Seconds from one burst to the next.
        steady: Share of the work that is always done.
        control_group: Where its group stands.
        lives: Seconds that it is there, and is not; None for ever.
    """

    uid: str
    threads: int
    megabytes: float
    cache: float
    period: float = 20.0
    steady: float = 0.5
    control_group: str = ""
    lives: tuple[float, float] | None = None

    def work(self, now: float) -> float:
        """Return how much of its most it does now."""
        wave = 0.5 + 0.5 * math.sin(2 * math.pi * now / self.period)
        return self.steady + (1 - self.steady) * wave

    def is_there(self, now: float) -> bool:
        """Tell whether the pod runs now."""
        if self.lives is None:
            return True
        there, gone = self.lives
        return now % (there + gone) < there


_GOLD: Final = "gold"
_WORKLOADS: Final = (
    _Workload("web-frontend", threads=24, megabytes=900, cache=0.12, period=9),
    _Workload("postgres-0", threads=41, megabytes=2600, cache=0.30, steady=0.7, control_group=_GOLD),
    _Workload("redis-cache", threads=6, megabytes=400, cache=0.18, steady=0.9),
    _Workload("spark-executor-3", threads=16, megabytes=5200, cache=0.25, period=14, steady=0.1),
    _Workload("backup-job", threads=3, megabytes=1500, cache=0.05, steady=0.8, lives=(11.0, 7.0)),
    _Workload("log-agent", threads=9, megabytes=35, cache=0.01),
    _Workload("idle-sidecar", threads=2, megabytes=0.2, cache=0.002),
)
_OTHER: Final = "cadvisor-node"
"""Another monitor's group."""
_UNTRACKED: Final = (17.0, 3.0)
"""Every so many seconds, for so many, the processor does not track the sidecar's RMID."""


@define
class _Pod:
    group: Path
    tids: list[Tid]
    cached: dict[int, float] = field(factory=lambda: dict.fromkeys(_DOMAINS, 0.0))


class LivelyNode:
    """The node.

    Args:
        config: Where its resctrl is, and which groups are ours.
        seed: Of its chances.

    Attributes:
        fs: Its file system.
        resctrl: The library over it.
    """

    def __init__(self, config: ResctrlConfig, *, seed: int = 1) -> None:
        self._now = 0.0
        self._random = Random(seed)  # noqa: S311 - not for secrets
        self.fs: FakeFs = FakeFs(
            root=config.root, num_rmids=_NUM_RMIDS, limbo=1.0, clock=lambda: self._now, domains=_DOMAINS
        )
        self.resctrl: Resctrl[FakeFs] = Resctrl.with_provider(self.fs, config)
        self._pods: dict[str, _Pod] = {}
        self.fs.create_dir(config.root / _GOLD)
        self.fs.create_dir(config.root / "mon_groups" / _OTHER)
        self.live(2.0)

    def live(self, seconds: float) -> None:
        """Let time pass."""
        while seconds > 0:
            step = min(_STEP, seconds)
            seconds -= step
            self._now += step
            self._come_and_go()
            for workload in _WORKLOADS:
                if workload.uid in self._pods:
                    self._work(workload, step)
            every, lasts = _UNTRACKED
            untracked = self._now % every < lasts
            self._tell_occupancy(untracked="idle-sidecar" if untracked else "")

    def _come_and_go(self) -> None:
        for workload in _WORKLOADS:
            if workload.is_there(self._now) and workload.uid not in self._pods:
                self._start(workload)
            elif not workload.is_there(self._now) and workload.uid in self._pods:
                pod = self._pods.pop(workload.uid)
                for tid in pod.tids:
                    self.fs.end(tid)
                self.resctrl.delete_group(pod.group)

    def _start(self, workload: _Workload) -> None:
        tids = [self.fs.spawn() for _ in range(workload.threads)]
        if workload.control_group:
            class_tasks = self.resctrl.config.root / workload.control_group / "tasks"
            self.fs.write_all(class_tasks, [f"{tid}\n".encode() for tid in tids])
        group = self.resctrl.create_group(workload.uid, workload.control_group)
        self.resctrl.assign_tasks(group, tids)
        self._pods[workload.uid] = _Pod(group, tids)

    def _work(self, workload: _Workload, step: float) -> None:
        pod = self._pods[workload.uid]
        share = workload.work(self._now) * self._random.uniform(0.85, 1.0)
        for domain in _DOMAINS:
            part = 0.7 if domain == len(workload.uid) % len(_DOMAINS) else 0.3
            moved = int(workload.megabytes * _MB * share * part * step)
            tid = pod.tids[self._random.randrange(len(pod.tids))]
            self.fs.move_bytes(tid, moved, local=int(moved * 0.75), domain=domain)
            wanted = workload.cache * _CACHE * share * part * len(_DOMAINS)
            pod.cached[domain] += (wanted - pod.cached[domain]) * min(1.0, step)

    def _tell_occupancy(self, *, untracked: str) -> None:
        for uid, pod in self._pods.items():
            for domain, cached in pod.cached.items():
                told = "Unavailable" if uid == untracked else int(cached) // 65536 * 65536
                self.fs.set_reading(pod.group, "llc_occupancy", told, domain=domain)
