"""What `--health-addr` says of readiness: each thing that is in the way is told, and none is made up."""

from __future__ import annotations

import asyncio
import errno
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin import ResctrlPlugin
from nri_resctrl_plugin.cli.health import Health
from resctrl import FsProvider, Resctrl
from resctrl.testing import FakeFs, FaultyFs, Privilege
from tests.plugin_support import pod

if TYPE_CHECKING:
    from collections.abc import Sequence


class Link:
    """A connection to a runtime."""

    def __init__(self, obstacle: str | None = None) -> None:
        self.obstacle = obstacle


def readiness(
    fs: FsProvider, link: Link | None = None, pods: Sequence[str] = (), gone: Sequence[str] = ()
) -> tuple[int, str]:
    """Return what the program over this machine answers at /readyz, served as the program serves it.

    Args:
        fs: The machine.
        link: The connection to the runtime.
        pods: For these the plugin has tried to make a group before it is asked.
        gone: Those of them that are gone by then.
    """

    def ask(port: int) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=8) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def body() -> tuple[int, str]:
        health = Health("127.0.0.1:0")
        resctrl = health.counted(Resctrl.with_provider(fs))
        plugin = ResctrlPlugin.with_resctrl(None, resctrl)
        async with plugin, health.served(plugin, link or Link()) as server:
            assert server is not None
            for uid in pods:
                await plugin.run_pod_sandbox(pod(uid, f"s-{uid}"))
            await plugin.settled()
            for uid in gone:
                await plugin.remove_pod_sandbox(pod(uid, f"s-{uid}"))
            await plugin.settled()
            return await asyncio.to_thread(ask, server.port)

    return asyncio.run(body())


def test_groups_can_be_made() -> None:
    """Mounted, writable, with monitoring, and a runtime that tells: ready."""
    assert readiness(FakeFs()) == (200, "ok\n")


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (FakeFs(mounted=False), "resctrl is not mounted at /sys/fs/resctrl"),
        (FakeFs(supported=False, mounted=False), "resctrl is not mounted at /sys/fs/resctrl"),
        (FakeFs(privilege=Privilege.USER), "/sys/fs/resctrl/tasks cannot be written"),
        (FakeFs(monitoring=False), "this machine cannot monitor"),
    ],
    ids=["unmounted", "no-resctrl", "not-root", "allocates-alone"],
)
def test_what_keeps_groups_from_being_made(kernel: FakeFs, why: str) -> None:
    """Each is told in its own sentence, with status 503."""
    assert readiness(kernel) == (503, f"{why}\n")


def test_a_read_only_mount() -> None:
    """Mounted, and no group can be made all the same."""
    kernel = FakeFs()
    kernel.remount(read_only=True)
    assert readiness(kernel) == (503, "/sys/fs/resctrl/tasks cannot be written\n")


def test_a_refusal_that_only_an_attempt_shows() -> None:
    """Root without CAP_DAC_OVERRIDE can write `tasks` and make no group: the refusal tells."""
    kernel = FakeFs(privilege=Privilege.NO_DAC_OVERRIDE)
    assert readiness(kernel) == (200, "ok\n")
    status, text = readiness(kernel, pods=["a"])
    assert status == 503
    assert "cannot create group" in text
    assert "EACCES" in text


def test_a_refusal_of_which_nobody_is_left() -> None:
    """Nobody would try again, so it would be told for ever, also when it is mended."""
    kernel = FakeFs(privilege=Privilege.NO_DAC_OVERRIDE)
    assert readiness(kernel, pods=["a", "b"], gone=["b"])[0] == 503
    assert readiness(kernel, pods=["a"], gone=["a"]) == (200, "ok\n")


def test_a_refusal_that_is_over() -> None:
    """The next group that is made takes it back, and so does one for which there is no room alone."""
    for number in (None, errno.ENOSPC):
        faulty = FaultyFs(FakeFs())
        faulty.fail("create_dir", errno.EACCES)
        if number is not None:
            faulty.fail("create_dir", number, nth=2)
        assert readiness(faulty, pods=["a", "b"]) == (200, "ok\n")


def test_a_machine_that_cannot_be_looked_at() -> None:
    """The error is told: what is not known is not taken for ready."""
    faulty = FaultyFs(FakeFs())
    faulty.fail("read_text", errno.EIO, times=math.inf, path=Path("/proc/self/mountinfo"))
    status, text = readiness(faulty)
    assert status == 503
    assert "EIO" in text


def test_the_runtime_and_the_machine_are_both_told() -> None:
    """One does not hide the other."""
    status, text = readiness(FakeFs(mounted=False), Link("no runtime"))
    assert (status, text.splitlines()) == (503, ["no runtime", "resctrl is not mounted at /sys/fs/resctrl"])
