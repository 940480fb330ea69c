"""What the fake's processor counts: `mon_data`, and what a test does to it.

Owns: the domains, the counts, the words. Must not know: how groups come and go, paths of the caller.

The beliefs (K64 ...) are numbered in docs/explanation/kernel-semantics.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from resctrl.testing.info import Hardware
    from resctrl.testing.nodes import Node
    from resctrl.testing.tasks import Group

__all__ = ["Amount", "Counters"]

_BYTES_A_THREAD: Final = 65536
_UNAVAILABLE: Final = "Unavailable"

Amount: TypeAlias = int | float | str
"""A number, or a word such as "Unavailable" or "Error"."""


class Counters:
    """The counting part of a processor.

    Args:
        hardware: What it is.
        threads: Returns how many threads are in a group itself.

    Attributes:
        word: What every counter says instead of a number, because the hardware says so (K65); or None.
    """

    def __init__(self, hardware: Hardware, threads: Callable[[Group], int]) -> None:
        self.word: str | None = None
        self._hardware = hardware
        self._threads = threads
        self._offline: set[int] = set()

    @property
    def online(self) -> list[int]:
        """The ids of the L3 caches whose processors run."""
        return [domain for domain in self._hardware.domains if domain not in self._offline]

    def add_to(self, group: Group) -> None:
        """Add `mon_data` to a new group."""
        writable = group.node.owner_writable
        mon_data = group.node.add_dir("mon_data", owner_writable=writable, owner=group)
        for domain in self.online:
            self._add_domain(mon_data, group, domain)
        for package in self._hardware.packages:
            directory = _directory(mon_data, group, f"mon_PERF_PKG_{package:02d}")
            for event in self._hardware.package_events:
                self._add_file(directory, group, [package], event)

    def set_online(self, domain: int, groups: Iterable[Group], *, online: bool) -> None:
        """Let the processors at an L3 cache run, or not; what the groups counted there is lost (K68).

        Raises:
            ValueError: There is no such cache, or no other one runs.
        """
        if domain not in self._hardware.domains or (not online and self.online == [domain]):
            raise ValueError(f"the fake cannot do without L3 cache {domain}, or has none such")
        if online is (domain in self.online):
            return
        self._offline ^= {domain}
        for group in groups:
            mon_data = group.node.entries["mon_data"]
            if online:
                for node in self._nodes(domain):
                    for event in self._hardware.events:
                        group.counts.pop((node, event), None)
                self._add_domain(mon_data, group, domain)
            else:
                mon_data.entries[_name(domain)].remove()

    def move_bytes(self, group: Group, node: int, total: int, local: int) -> None:
        """Let a thread of a group move bytes between a cache and memory (K64)."""
        for event, amount in (("mbm_total_bytes", total), ("mbm_local_bytes", local)):
            before = group.counts.get((node, event), 0)
            if not isinstance(before, str):
                group.counts[node, event] = before + amount

    def _nodes(self, domain: int) -> range:
        """Return the NUMA nodes of an L3 cache; without sub-NUMA clustering one, with the cache's id."""
        count = self._hardware.nodes_per_domain
        return range(domain * count, (domain + 1) * count)

    def _add_domain(self, mon_data: Node, group: Group, domain: int) -> None:
        directory = _directory(mon_data, group, _name(domain))
        nodes = self._nodes(domain)
        for event in self._hardware.events:
            self._add_file(directory, group, nodes, event)
        for node in nodes if len(nodes) > 1 else ():
            below = _directory(directory, group, f"mon_sub_L3_{node:02d}")
            for event in self._hardware.events:
                self._add_file(below, group, [node], event)

    def _add_file(self, directory: Node, group: Group, nodes: Sequence[int], event: str) -> None:
        def show() -> str:
            amounts = [self._sum(group, node, event) for node in nodes]
            amount = _total(amounts)
            # Whatever was the matter with the nodes, their sum says one word (K67).
            return _text(_UNAVAILABLE if len(nodes) > 1 and isinstance(amount, str) else amount)

        directory.add_file(event, show)

    def _sum(self, group: Group, node: int, event: str) -> Amount:
        """Return what a group and its children count in a node (K71)."""
        if self.word is not None:
            return self.word
        return _total([self._own(one, node, event) for one in (group, *group.children)])

    def _own(self, group: Group, node: int, event: str) -> Amount:
        """Return what a group counts by itself."""
        found = group.counts.get((node, event))
        if found is None and event == "llc_occupancy":
            return self._threads(group) * _BYTES_A_THREAD
        return found if found is not None else 0.0 if event in self._hardware.package_events else 0


def _name(domain: int) -> str:
    return f"mon_L3_{domain:02d}"


def _directory(parent: Node, group: Group, name: str) -> Node:
    return parent.add_dir(name, owner_writable=group.node.owner_writable, owner=group)


def _total(amounts: Sequence[Amount]) -> Amount:
    """Add up; a word is a failed reading, which counts nothing while there is any number (K72)."""
    numbers = [amount for amount in amounts if not isinstance(amount, str)]
    return sum(numbers) if numbers else amounts[0]


def _text(amount: Amount) -> str:
    return f"{amount:.6f}\n" if isinstance(amount, float) else f"{amount}\n"
