"""What resctrl tells of itself: `info/` and the mount, as typed values.

Owns: the meaning of the files of `info/`. Must not know: groups.

Rules:
    1. Nothing is required to be there: what a kernel does not have is None, or empty.
    2. Nothing is lost: a file that this module does not know, and one whose text has another shape than it
       knows, is in `other` as it was read. One that cannot be read is left out.

Source: Documentation/filesystems/resctrl.rst (before 6.16 in Documentation/arch/x86), "Info directory".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import field, frozen

from resctrl.errors import Operation, translate
from resctrl.mount import detect_support, mount_at, not_mounted

if TYPE_CHECKING:
    from resctrl.fs import FsProvider
    from resctrl.model import ResctrlConfig

__all__ = ["AllocationInfo", "AssignMode", "MonitoringInfo", "MountInfo", "ResctrlInfo", "read_info"]

T = TypeVar("T")

_MONITORING: Final = "_MON"
_DEEPEST: Final = 4
_STATUS: Final = "last_cmd_status"


@frozen(kw_only=True)
class MountInfo:
    """How resctrl is mounted.

    Attributes:
        mount_point: Where.
        options: Of the file system, such as `cdp`, `cdpl2`, `mba_MBps`, `debug`, in the kernel's order.
        read_only: The mount, or the whole file system, may not be written to.
    """

    mount_point: Path
    options: tuple[str, ...] = ()
    read_only: bool = False


@frozen(kw_only=True)
class AssignMode:
    """How hardware counters come to the groups (`mbm_assign_mode`, Linux 6.18).

    Attributes:
        current: The mode that is in use: "mbm_event" (a group has the counters that it was assigned, others
            read "Unassigned") or "default" (each RMID counts).
        possible: All that this machine knows.
    """

    current: str
    possible: tuple[str, ...]


def _texts(values: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(values))


@frozen(kw_only=True)
class MonitoringInfo:
    """What a resource can count (`info/<name>`, its name ending in `_MON`).

    Attributes:
        name: Such as "L3_MON", or "PERF_PKG_MON" (Linux 7.0).
        num_rmids: How many groups it can tell apart, the default group included; per logical domain.
        features: The events that it counts, in the kernel's order, `*_config` among them.
        max_threshold_occupancy: Bytes of cache below which a freed RMID can be used again.
        mbm_assign_mode: How counters are assigned; None where each RMID has its own.
        num_mbm_cntrs: Counters that can be assigned, by id of the domain.
        available_mbm_cntrs: Those of them that are free.
        mbm_assign_on_mkdir: Whether a new group is given counters by itself.
        other: Texts of all other files, by their path below the directory.
    """

    name: str
    num_rmids: int | None = None
    features: tuple[str, ...] = ()
    max_threshold_occupancy: int | None = None
    mbm_assign_mode: AssignMode | None = None
    num_mbm_cntrs: Mapping[int, int] | None = field(default=None, hash=False)
    available_mbm_cntrs: Mapping[int, int] | None = field(default=None, hash=False)
    mbm_assign_on_mkdir: bool | None = None
    other: Mapping[str, str] = field(factory=dict, converter=_texts, hash=False)


@frozen(kw_only=True)
class AllocationInfo:
    """What of a resource can be allocated (`info/<name>`).

    Attributes:
        name: Such as "L3", "L3CODE", "L2", "MB", "SMBA".
        num_closids: How many control groups there can be, the default group included.
        cbm_mask: All bits of a cache's bitmask.
        min_cbm_bits: How many bits a mask must have.
        shareable_bits: Bits that other parts of the machine (graphics, input and output) may use as well.
        sparse_masks: Masks with gaps are taken (Linux 6.7).
        min_bandwidth: The least bandwidth that can be asked for: percent, or with the mount option
            `mba_MBps` MiB a second, and on AMD units of 1/8 GB a second.
        bandwidth_gran: The steps in which it can be asked for, in the same unit.
        delay_linear: The throttling is linear.
        thread_throttle_mode: "max" (one limit for a core) or "per-thread".
        other: Texts of all other files, `bit_usage` among them, by their path below the directory.
    """

    name: str
    num_closids: int | None = None
    cbm_mask: int | None = None
    min_cbm_bits: int | None = None
    shareable_bits: int | None = None
    sparse_masks: bool | None = None
    min_bandwidth: int | None = None
    bandwidth_gran: int | None = None
    delay_linear: bool | None = None
    thread_throttle_mode: str | None = None
    other: Mapping[str, str] = field(factory=dict, converter=_texts, hash=False)


def _monitoring(values: Mapping[str, MonitoringInfo]) -> Mapping[str, MonitoringInfo]:
    return MappingProxyType(dict(values))


def _allocation(values: Mapping[str, AllocationInfo]) -> Mapping[str, AllocationInfo]:
    return MappingProxyType(dict(values))


@frozen(kw_only=True)
class ResctrlInfo:
    """What resctrl tells of itself.

    Attributes:
        mount: How it is mounted.
        monitoring: What can be counted, by the name of the resource; empty on a machine that cannot.
        allocation: What can be allocated, by the name of the resource; empty on a machine that cannot.
        last_cmd_status: Lines of `last_cmd_status`: why the last failed command failed, whoever gave it.
            Empty after a success. One buffer for the whole machine, so advice at best.
        other: Texts of all other files directly in `info/`, by their name.
    """

    mount: MountInfo
    monitoring: Mapping[str, MonitoringInfo] = field(converter=_monitoring, hash=False)
    allocation: Mapping[str, AllocationInfo] = field(converter=_allocation, hash=False)
    last_cmd_status: tuple[str, ...] = ()
    other: Mapping[str, str] = field(factory=dict, converter=_texts, hash=False)

    @property
    def num_rmids(self) -> int | None:
        """How many groups can be told apart, the default group and control groups included; None if none.

        With more than one resource that counts (Linux 7.0) the smallest number is the limit.
        """
        numbers = [one.num_rmids for one in self.monitoring.values() if one.num_rmids is not None]
        return min(numbers, default=None)

    @property
    def num_closids(self) -> int | None:
        """How many control groups there can be, the default group included; None if none."""
        numbers = [one.num_closids for one in self.allocation.values() if one.num_closids is not None]
        return min(numbers, default=None)

    @property
    def features(self) -> tuple[str, ...]:
        """The events that any resource counts, in the kernel's order."""
        return tuple(event for one in self.monitoring.values() for event in one.features)


def read_info(fs: FsProvider, config: ResctrlConfig) -> ResctrlInfo:
    """Read everything once: see `resctrl.Resctrl.info`."""
    with translate(Operation.READ_INFO, config.root):
        entry = mount_at(fs, config.root)
    if entry is None:
        raise not_mounted(detect_support(fs, config.root), Operation.READ_INFO, config.root)
    info = config.root / "info"
    with translate(Operation.READ_INFO, info):
        names = fs.read_child_dirs(info)
        top = _Texts(_files(fs, info))
    monitoring, allocation = {}, {}
    for name in names:
        texts = _Texts(_tree(fs, info / name))
        if name.endswith(_MONITORING):
            monitoring[name] = _monitoring_info(name, texts)
        else:
            allocation[name] = _allocation_info(name, texts)
    return ResctrlInfo(
        mount=MountInfo(
            mount_point=config.root,
            options=tuple(option for option in entry.fs_options if option not in {"rw", "ro"}),
            read_only="ro" in {*entry.options, *entry.fs_options},
        ),
        monitoring=monitoring,
        allocation=allocation,
        last_cmd_status=top.take(_STATUS, _status) or (),
        other=top.rest,
    )


class _Texts:
    """The files of a directory, from which those that are understood are taken.

    Attributes:
        rest: Those that were not.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self.rest = texts

    def take(self, name: str, meaning: Callable[[str], T | None]) -> T | None:
        """Return what a file means; None where it is not there or means nothing that is known."""
        text = self.rest.get(name)
        value = meaning(text) if text is not None else None
        if value is not None:
            del self.rest[name]
        return value


def _monitoring_info(name: str, texts: _Texts) -> MonitoringInfo:
    return MonitoringInfo(
        name=name,
        num_rmids=texts.take("num_rmids", _number),
        features=texts.take("mon_features", _lines) or (),
        max_threshold_occupancy=texts.take("max_threshold_occupancy", _number),
        mbm_assign_mode=texts.take("mbm_assign_mode", _assign_mode),
        num_mbm_cntrs=texts.take("num_mbm_cntrs", _by_domain),
        available_mbm_cntrs=texts.take("available_mbm_cntrs", _by_domain),
        mbm_assign_on_mkdir=texts.take("mbm_assign_on_mkdir", _flag),
        other=texts.rest,
    )


def _allocation_info(name: str, texts: _Texts) -> AllocationInfo:
    return AllocationInfo(
        name=name,
        num_closids=texts.take("num_closids", _number),
        cbm_mask=texts.take("cbm_mask", _mask),
        min_cbm_bits=texts.take("min_cbm_bits", _number),
        shareable_bits=texts.take("shareable_bits", _mask),
        sparse_masks=texts.take("sparse_masks", _flag),
        min_bandwidth=texts.take("min_bandwidth", _number),
        bandwidth_gran=texts.take("bandwidth_gran", _number),
        delay_linear=texts.take("delay_linear", _flag),
        thread_throttle_mode=texts.take("thread_throttle_mode", _word),
        other=texts.rest,
    )


# What texts mean; None: something else than is known

_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_MASK: Final = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)
_PER_DOMAIN: Final = re.compile(r"[0-9]{1,9}=[0-9]{1,9}(;[0-9]{1,9}=[0-9]{1,9})*", re.ASCII)
_FLAGS: Final = MappingProxyType({"0": False, "1": True})


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text.strip()) else None


def _mask(text: str) -> int | None:
    return int(text, 16) if _MASK.fullmatch(text.strip()) else None


def _flag(text: str) -> bool | None:
    return _FLAGS.get(text.strip())


def _word(text: str) -> str | None:
    return text.strip() or None


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in text.split("\n") if line)


def _status(text: str) -> tuple[str, ...]:
    return () if text == "ok\n" else _lines(text)


def _by_domain(text: str) -> Mapping[int, int] | None:
    """Read `0=32;1=32`."""
    if not _PER_DOMAIN.fullmatch(text.strip()):
        return None
    pairs = (pair.split("=") for pair in text.strip().split(";"))
    return MappingProxyType({int(domain): int(count) for domain, count in pairs})


def _assign_mode(text: str) -> AssignMode | None:
    """Read a line for each mode, the present one in brackets."""
    possible = _lines(text)
    current = [line[1:-1] for line in possible if line.startswith("[") and line.endswith("]")]
    if len(current) != 1:
        return None
    return AssignMode(current=current[0], possible=tuple(line.strip("[]") for line in possible))


# Reading


def _files(fs: FsProvider, directory: Path) -> dict[str, str]:
    """Return the texts of the files in a directory; what cannot be read is left out."""
    texts = {}
    for name in fs.read_child_files(directory):
        try:
            texts[name] = fs.read_text(directory / name)
        except OSError:  # a part of another mode of the machine, or meant for writing alone
            continue
    return texts


def _tree(fs: FsProvider, directory: Path, depth: int = 1) -> dict[str, str]:
    """Return the texts of the files in a directory and below, by their path below it."""
    try:
        texts = _files(fs, directory)
        below = fs.read_child_dirs(directory) if depth < _DEEPEST else []
    except OSError:
        return {}
    for name in below:
        for path, text in _tree(fs, directory / name, depth + 1).items():
            texts[f"{name}/{path}"] = text
    return texts
