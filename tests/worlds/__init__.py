"""Machines that a scenario can run on: each has threads, containers and a resctrl, real or not.

`WORLDS` names them. What a scenario may ask of one is `World` (`protocol.py`, with the rules); the machine in
memory is in `fake.py`, the real ones in `real.py`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tests.worlds.fake import FakeSite, FakeWorld
from tests.worlds.protocol import (
    DEADLINE,
    Capability,
    ContainerHandle,
    Machine,
    Site,
    World,
    WorldMissing,
    eventually,
)
from tests.worlds.real import RUN_PREFIX, HardwareSite, KernelSite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DEADLINE",
    "LISTED_SKIPS",
    "RUN_PREFIX",
    "WORLDS",
    "Capability",
    "ContainerHandle",
    "FakeWorld",
    "Machine",
    "Site",
    "World",
    "WorldMissing",
    "eventually",
]

WORLDS: Final[Mapping[str, Callable[[], Site]]] = MappingProxyType(
    {"fake": FakeSite, "kernel": KernelSite, "hardware": HardwareSite}
)
"""The kinds of world. Making a site of one raises WorldMissing where this machine cannot."""

LISTED_SKIPS: Final[Mapping[str, frozenset[Capability | Machine]]] = MappingProxyType(
    {
        "fake": frozenset(),
        "kernel": frozenset(),
        "hardware": frozenset(
            {Capability.MOUNTING, Capability.PARTING, Machine.WITHOUT_RESCTRL, Machine.WITHOUT_MONITORING},
        ),
    }
)
"""What no machine of a world can do, or be. The kernel world is all machines, each in a guest of its own."""
