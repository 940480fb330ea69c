"""`run`: the plugin behind the real wire, against the runtime's side of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from nri_resctrl_plugin import Exists, PodResctrlAddOrUpdate, PodUid, ResctrlPlugin, ResctrlPluginConfig
from nri_resctrl_plugin.demo.peer import Style
from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.nri.errors import InvalidIdentityError
from resctrl.testing import FakeFs
from tests.plugin_support import bench, container, pod, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.plugin_support import Provider


@contextlib.asynccontextmanager
async def serving(plugin: ResctrlPlugin[Provider], socket: Path) -> AsyncIterator[None]:
    """Let a plugin serve a runtime, and end it."""
    task = asyncio.create_task(plugin.run(socket_path=socket, name="resctrl", idx="10"))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await plugin.close()


def add(uid: str, total: int, reconciled: int) -> PodResctrlAddOrUpdate:
    path = FakeFs().root / "mon_groups" / f"pod_{uid}"
    return PodResctrlAddOrUpdate(PodUid(uid), Exists(path), total, reconciled)


@pytest.mark.parametrize("style", list(Style))
def test_a_node_over_the_wire(tmp_path: Path, style: Style) -> None:
    """A listing in many parts is one listing: one sweep, all groups; START is answered when assigned."""

    async def main() -> None:
        it = bench(kernel=FakeFs(num_rmids=32))
        it.kernel.create_dir(it.path("stale"))
        runtime = RuntimeSide(tmp_path / "nri.sock", style=style, part_bytes=512)
        for number in range(12):
            sandbox = pod(f"p{number}", f"s{number}")
            runtime.pods[sandbox.id] = sandbox
            box = container(f"c{number}", sandbox.id)
            runtime.containers[box.id] = box
            it.threads(box.id)
        with capture_logs() as logs:
            async with runtime, serving(it.plugin, runtime.socket_path):
                await runtime.synchronized()
                await _complete(it.plugin, 12)
                assert it.groups() == sorted(f"pod_p{number}" for number in range(12))
                tids = it.threads("late", 3)
                await runtime.start_container(container("late", "s3"))
                assert it.kernel.tasks_in(it.path("p3")) >= set(tids)
                assert it.plugin.snapshot()[PodUid("p3")] == add("p3", 2, 2)
                before = it.plugin.snapshot()
                await runtime.drop()
                await runtime.synchronized()
                await it.plugin.settled()
                assert it.plugin.snapshot() == before
                await runtime.stop_pod("s3")
                await it.plugin.settled()
                assert "pod_p3" not in it.groups()
        assert [log["event"] for log in logs].count("startup_cleanup") == 1

    run(main())


async def _complete(plugin: ResctrlPlugin[Provider], pods: int) -> None:
    """Wait until so many pods are told as complete: the listing is decoded behind its answer."""
    done: set[PodUid] = set()
    async for event in plugin.events():
        if isinstance(event, PodResctrlAddOrUpdate) and event.reconciled_containers == 1:
            done.add(event.pod_uid)
            if len(done) == pods:
                return


def test_settings_arrive_with_the_connection(tmp_path: Path) -> None:
    """A runtime's configuration text counts before the first listing is taken in."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig())
        runtime = RuntimeSide(tmp_path / "nri.sock", config="group_prefix: e2e_", told_timeout=0.5)
        runtime.pods["s"] = pod("a", "s")
        async with runtime, serving(it.plugin, runtime.socket_path):
            await runtime.synchronized()
            async for event in it.plugin.events():
                assert isinstance(event, PodResctrlAddOrUpdate)
                break
            assert it.groups() == ["e2e_a"]
            assert it.plugin._start_wait == 0.25

    run(main())


@pytest.mark.parametrize(("name", "idx"), [("resctrl", "1"), ("", "10"), ("a b", "10")])
def test_an_identity_that_every_runtime_refuses_is_an_error(tmp_path: Path, name: str, idx: str) -> None:
    """It is raised at once instead of connecting for ever."""

    async def main() -> None:
        it = bench()
        with pytest.raises(InvalidIdentityError):
            await it.plugin.run(socket_path=tmp_path / "nri.sock", name=name, idx=idx)
        await it.plugin.close()

    run(main())
