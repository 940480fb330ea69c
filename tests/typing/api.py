"""The public API as a user would write it: mypy checks this file strictly, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never, assert_type

from nri_resctrl_plugin import (
    ContainerState,
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    PodUid,
    ResctrlPlugin,
    ResctrlPluginConfig,
    RetryReport,
)
from resctrl import (
    AssignmentResult,
    Capacity,
    CapacityError,
    CleanupReport,
    Domain,
    FsProvider,
    GroupReading,
    Rate,
    ReadError,
    RealFs,
    ReconcileResult,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    ResctrlGroup,
    ResctrlInfo,
    RmidsBusyError,
    Sampler,
    SupportInfo,
    TaskGroups,
    Tid,
    Total,
    Unassigned,
    Unavailable,
    Value,
    rate,
)
from resctrl.testing import FakeFs, FakePidSource, FaultyFs, RecordingFs


def library_alone() -> None:
    """The library knows its provider's type and gives values, not dictionaries."""
    resctrl = Resctrl(ResctrlConfig(group_prefix="mine_"))
    assert_type(resctrl, Resctrl[RealFs])
    assert_type(resctrl.detect_support(), SupportInfo)
    resctrl.ensure_mounted(auto_mount=False)
    group = resctrl.create_group("uid")
    assert_type(group, Path)
    assert_type(resctrl.assign_tasks(group, [Tid(1)]), AssignmentResult)
    assert_type(resctrl.reconcile_group(group, lambda: [Tid(1)], max_passes=3), ReconcileResult)
    assert_type(resctrl.list_group_tasks(group), list[Tid])
    assert_type(resctrl.cleanup_all(), CleanupReport)
    resctrl.delete_group(group)


def classes_and_capacity(resctrl: Resctrl[RealFs]) -> None:
    """A group may stand below a control group, and what there is can be asked for."""
    group = resctrl.create_group("uid", "gold")
    assert_type(resctrl.move_group(group, ""), Path)
    where = resctrl.task_groups(Tid(1))
    assert_type(where, TaskGroups | None)
    for each in resctrl.list_groups():
        assert_type(each, ResctrlGroup)
        assert_type((each.path, each.control_group, each.name, each.ours), tuple[Path, str, str, bool])
    capacity = resctrl.capacity()
    assert_type(capacity, Capacity)
    assert_type((capacity.num_rmids, capacity.in_use, capacity.ours), tuple[int, int, int])
    assert_type(capacity.free, int)
    assert_type(resctrl.cleanup_all(below_control_groups=True, keep={group.name}).kept, int)


def readings(group: Path) -> str:
    """A reading is a closed union, a rate a number or why there is none, and a sampler keeps its provider."""
    resctrl = Resctrl()
    before, after = resctrl.read_group(group), resctrl.read_group(group)
    assert_type(before, GroupReading)
    assert_type(before.total("llc_occupancy"), Total)
    assert_type(rate(before, after, "mbm_total_bytes"), Rate)
    assert_type(resctrl.info(), ResctrlInfo)
    with Sampler(resctrl, max_open=100) as sampler:
        assert_type(sampler, Sampler[RealFs])
        sampler.add(group)
        for path, reading in sampler.sample().items():
            assert_type(path, Path)
            assert_type(reading, GroupReading)
    for (domain, event), told in before.values.items():
        assert_type(domain, Domain)
        match told:
            case Value(amount):
                return f"{event} {amount}"
            case Unavailable() | Unassigned():
                return "none"
            case ReadError(text):
                return text
            case _:
                assert_never(told)
    return ""


def errors() -> None:
    """One base class, and the transient case is a case of capacity."""
    try:
        Resctrl().create_group("uid")
    except RmidsBusyError as error:
        assert_type(error.kernel_status, str | None)
    except CapacityError as error:
        assert_type(error.retryable, bool)
    except ResctrlError as error:
        assert_type(error.errno, int | None)
        assert_type(error.refused, tuple[Tid, ...])


def every_provider_is_one(fake: FakeFs) -> list[FsProvider]:
    """The test kit's providers are providers, and a `Resctrl` over one gives it back as what it is."""
    over_fake = Resctrl.with_provider(fake)
    assert_type(over_fake.fs, FakeFs)
    assert_type(fake.spawn(), Tid)
    return [fake, FaultyFs(fake), RecordingFs(fake), RealFs()]


def describe(event: PodResctrlEvent) -> str:
    """Events are a closed union that `match` takes apart."""
    match event:
        case PodResctrlAddOrUpdate(uid, Exists(path), total, reconciled):
            return f"{uid} {path} {reconciled}/{total}"
        case PodResctrlAddOrUpdate(uid, Failed(reason)):
            return f"{uid} {reason}"
        case PodResctrlRemoved(uid):
            return str(uid)
        case PodResctrlAddOrUpdate():
            return "unreachable, but mypy does not narrow nested class patterns"
        case _:
            assert_never(event)


async def agent(fake: FakeFs, source: FakePidSource) -> None:
    """An agent listens, retries on its own cadence and asks for the present state."""
    config = ResctrlPluginConfig(cleanup_on_start=False)
    plugin = ResctrlPlugin.with_pid_source(config, Resctrl.with_provider(fake), source)
    async with plugin, ResctrlPlugin(config) as real:
        assert_type(real, ResctrlPlugin[RealFs])
        async for event in plugin.events():
            describe(event)
        assert_type(plugin.snapshot(), dict[PodUid, PodResctrlAddOrUpdate])
        assert_type(await plugin.retry_group_creation("uid"), Exists)
        assert_type(await plugin.retry_container_reconcile("id"), ContainerState)
        assert_type(await plugin.retry_all_once(), RetryReport)
        stop = plugin.subscribe(lambda event: None)
        stop()
        with plugin.record_events() as record:
            assert_type(record.events, list[PodResctrlEvent])
        await plugin.settled()
