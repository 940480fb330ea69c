"""The lane itself: what it starts, in what shape, and that it ends it. The plugin is not here yet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e import observer
from tests.e2e.containerd import Containerd, View
from tests.e2e.packages import OLDEST_CONTAINERD
from tests.e2e.pods import PodMaker
from tests.e2e.sweep import leftovers

if TYPE_CHECKING:
    from tests.e2e.packages import Tools

SHAPES = {
    View.MACHINE: r"/{name}/burstable/pod{uid}/{id}",
    View.UNIFIED: r"/{name}/burstable/pod{uid}/{id}",
    View.SLICES: r"/{name}\.slice/{name}-burstable\.slice/{name}-burstable-pod{slice_uid}\.slice"
    r"/cri-containerd-{id}\.scope",
    View.LITERAL: r".*/{name}-burstable-pod{slice_uid}\.slice:cri-containerd:{id}",
}


async def test_a_container_lives_in_the_cgroup_that_its_view_promises(viewed_containerd: Containerd) -> None:
    """The views really differ: plain paths, expanded slices, a slice's bare name, cgroup v2 alone."""
    containerd, view = viewed_containerd, viewed_containerd.view
    async with PodMaker(containerd) as maker:
        version = await maker.cri.version()
        pod = await maker.pod()
        container = await maker.container(pod)
        (pid,) = maker.threads(container)
        expected = SHAPES[view].format(
            name=containerd.name, uid=pod.uid, slice_uid=pod.uid.replace("-", "_"), id=container
        )
        paths = [it for it in observer.cgroups_of(pid) if container in it]
        assert [it for it in paths if re.fullmatch(expected, it)] == paths != []
        assert (containerd.cgroup_root / "cgroup.controllers").exists() == (
            view is View.UNIFIED or observer.cgroup_mounts().get(Path("/sys/fs/cgroup")) == "cgroup2"
        )
        assert await maker.cri.exec(container, "/bin/echo", "hello") == b"hello\n"
        await maker.remove_container(container)
        assert maker.threads(container) == set()
        await maker.remove(pod)
        assert maker.cri.failures == []
    assert version.runtime_name == "containerd"


async def test_a_daemon_that_was_killed_finds_its_pods_again(containerd: Containerd) -> None:
    """SIGKILL ends the daemon alone: containers live on, and the next daemon knows them."""
    async with PodMaker(containerd) as maker:
        pod = await maker.pod()
        container = await maker.container(pod)
        threads = maker.threads(container)
        await containerd.kill()
        assert maker.threads(container) == threads != set()
        await containerd.start()
        assert [it.id for it in await maker.cri.pods()] == [pod.sandbox_id]
        assert maker.threads(container) == threads


async def test_nothing_survives_the_sweep(tools: Tools) -> None:
    """A daemon killed with its pods running leaves four kinds of things; after the sweep none of them."""
    containerd = Containerd(tools)
    try:
        await containerd.start()
        async with PodMaker(containerd) as maker:  # it can remove nothing, since the daemon is dead by then
            container = await maker.container(await maker.pod())
            await containerd.kill()
        kinds = {it.split()[0] for it in leftovers(containerd.name)}
        assert kinds == {"process", "mount", "cgroup", "directory"}
        assert observer.threads_in(container) != set()
    finally:
        left = containerd.close()
    assert left == []
    assert observer.threads_in(container) == set()


def test_the_trimmed_cri_is_a_subset_of_the_real_one(cri_proto: Path) -> None:
    """Every message, field, enumerator and call of the trimmed proto stands so in the CRI's own."""
    real = _declarations(cri_proto.read_text())
    ours = _declarations((Path(__file__).parent / "cri/cri.proto").read_text())
    assert len(ours) > 100
    assert {it: real.get(it) for it in ours} == ours


def test_the_daemon_is_new_enough(tools: Tools) -> None:
    """NRI as the plugin speaks it came with containerd 1.7."""
    assert tools.containerd_version >= OLDEST_CONTAINERD, tools


def _declarations(proto: str) -> dict[tuple[str, str], str]:
    """Return what a flat .proto declares: (block, name) -> label, type and number, or the call's types."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", proto, flags=re.DOTALL)
    found: dict[tuple[str, str], str] = {}
    blocks = re.findall(r"^(message|enum|service)\s+(\w+)\s*\{(\}|.*?^\})", text, re.DOTALL | re.MULTILINE)
    for kind, block, body in blocks:
        found[kind, block] = ""
        if kind == "service":
            for name, asks, answers in re.findall(r"rpc (\w+)\(([\w ]+)\) returns \(([\w ]+)\)", body):
                found[block, name] = f"{asks} -> {answers}"
            continue
        for statement in body.split(";"):
            if (field := re.match(r"\s*(.*?)\s*\b(\w+)\s*=\s*(\d+)", statement, re.DOTALL)) is not None:
                found[block, field[2]] = f"{field[1].replace(' ', '')} = {field[3]}"
    return found
