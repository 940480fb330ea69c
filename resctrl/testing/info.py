"""What the fake's processor offers, and the files that tell of it.

Owns: the contents of info/ and of the files that the fake shows and does not interpret. Must not know:
groups' rules, tasks.

The layout and the texts are those of a machine with one L3 cache of 12 ways and 2 processors, as Linux 6.12
shows it (K74 to K77).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from resctrl.testing.nodes import refuse
from resctrl.testing.tasks_text import kstrtoull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resctrl.testing.nodes import Node

__all__ = ["Hardware", "Threshold", "control_files", "group_files", "info_tree"]

_L3_BYTES: Final = 16 * 1024 * 1024
_UNIT: Final = 65536
_UINT_MAX: Final = 2**32 - 1


@frozen(kw_only=True)
class Hardware:
    """A processor.

    Attributes:
        num_rmids: RMIDs, RMID 0 included.
        num_closids: CLOSIDs, CLOSID 0 included.
        monitoring: It can count (L3 monitoring).
        allocation: It can allocate (L3 and memory bandwidth).
        llc_occupancy: It counts cache occupancy, beside memory bandwidth.
        domains: Ids of its L3 caches.
        nodes_per_domain: How many NUMA nodes share an L3 cache: more than one is sub-NUMA clustering.
        packages: Ids of its packages, where it counts their energy too (Linux 7.0).
    """

    num_rmids: int
    num_closids: int
    monitoring: bool
    allocation: bool
    llc_occupancy: bool
    domains: tuple[int, ...] = field(default=(0,))
    nodes_per_domain: int = 1
    packages: tuple[int, ...] = ()

    @property
    def events(self) -> tuple[str, ...]:
        """The monitored events."""
        bandwidth = ("mbm_total_bytes", "mbm_local_bytes")
        return ("llc_occupancy", *bandwidth) if self.llc_occupancy else bandwidth

    @property
    def package_events(self) -> tuple[str, ...]:
        """The events of a package; their numbers are decimal fractions."""
        return ("core_energy", "activity") if self.packages else ()


class Threshold:
    """max_threshold_occupancy: how many bytes of cache a freed RMID may still hold to be used again (K77).

    Args:
        num_rmids: The kernel begins with the L3 size divided by this.
        release: Called when the threshold rises above what the fake's resting RMIDs hold (half of the L3).
    """

    def __init__(self, num_rmids: int, release: Callable[[], None]) -> None:
        self._bytes = _L3_BYTES // num_rmids // _UNIT * _UNIT
        self._release = release

    def show(self) -> str:
        """Return what the file reads."""
        return f"{self._bytes}\n"

    def store(self, chunk: bytes) -> None:
        """Take one write; the value is rounded down to the hardware's unit."""
        value = kstrtoull(chunk.split(b"\0", 1)[0])
        if value is None or _L3_BYTES < value <= _UINT_MAX:
            refuse(errno.EINVAL)
        if value > _UINT_MAX:
            refuse(errno.ERANGE)
        self._bytes = value // _UNIT * _UNIT
        if self._bytes > _L3_BYTES // 2:
            self._release()


def _constant(text: str) -> Callable[[], str]:
    return lambda: text


def _unmodelled(name: str) -> Callable[[bytes], None]:
    def store(chunk: bytes) -> None:
        raise NotImplementedError(f"the fake does not model writing {chunk!r} to {name!r}")

    return store


def group_files(
    directory: Node, show: Callable[[], str], store: Callable[[bytes], None], *, default_group: bool
) -> None:
    """Add what every group has: tasks, cpus, cpus_list."""
    directory.add_file("tasks", show, store)
    for name, all_cpus, none in (("cpus", "3\n", "0\n"), ("cpus_list", "0-1\n", "\n")):
        directory.add_file(name, _constant(all_cpus if default_group else none), _unmodelled(name))


def control_files(directory: Node, hardware: Hardware, online: Callable[[], Iterable[int]]) -> None:
    """Add what a control group has beside that: mode, schemata, size."""

    def rows(bandwidth: str, cache: str) -> Callable[[], str]:
        def show() -> str:
            if not hardware.allocation:
                return ""
            return "".join(
                f"{resource}:" + ";".join(f"{domain}={value}" for domain in online()) + "\n"
                for resource, value in (("MB", bandwidth), ("L3", cache))
            )

        return show

    directory.add_file("mode", _constant("shareable\n"), _unmodelled("mode"))
    directory.add_file("schemata", rows("100", "fff"), _unmodelled("schemata"))
    directory.add_file("size", rows("100", str(_L3_BYTES // 12 * 12)))


def info_tree(
    root: Node, hardware: Hardware, last_cmd_status: Callable[[], str], threshold: Threshold
) -> None:
    """Add info/."""
    info = root.add_dir("info", owner_writable=False)
    info.add_file("last_cmd_status", last_cmd_status)
    parts: dict[str, dict[str, str]] = {}
    if hardware.allocation:
        parts["L3"] = {
            "bit_usage": ";".join(f"{domain}={'S' * 12}" for domain in hardware.domains),
            "cbm_mask": "fff",
            "min_cbm_bits": "1",
            "num_closids": str(hardware.num_closids),
            "shareable_bits": "0",
            "sparse_masks": "0",
        }
        parts["MB"] = {
            "bandwidth_gran": "10",
            "delay_linear": "1",
            "min_bandwidth": "10",
            "num_closids": str(hardware.num_closids),
            "thread_throttle_mode": "max",
        }
    if hardware.monitoring:
        parts["L3_MON"] = {
            "mon_features": "\n".join(hardware.events),
            "num_rmids": str(hardware.num_rmids),
        }
    if hardware.packages:
        parts["PERF_PKG_MON"] = {
            "mon_features": "\n".join(hardware.package_events),
            "num_rmids": str(hardware.num_rmids),
        }
    for resource, files in parts.items():
        directory = info.add_dir(resource, owner_writable=False, owner=resource)
        for name, text in files.items():
            directory.add_file(name, _constant(text + "\n"))
    if hardware.monitoring:
        l3_mon = info.entries["L3_MON"]
        l3_mon.add_file("max_threshold_occupancy", threshold.show, threshold.store)
