"""The program serves a node: pods come and go, and RMIDs run out."""

from __future__ import annotations

import asyncio
import errno
import stat
import time
from typing import TYPE_CHECKING

from tests.node.program import Refused
from tests.node.workloads import FORKS, QUIET, THREADS, WORKS

if TYPE_CHECKING:
    from tests.e2e.pods import Pod
    from tests.node.conftest import Record
    from tests.node.node import Node
    from tests.node.program import Program

LIMBO = 10.0
"""Seconds within which a freed RMID can be used again. A kernel looks each second whether one is cold."""


async def test_a_container_added_later_is_assigned_before_it_runs(node: Node, serving: Program) -> None:
    """A workload's first act already happens in its pod's group, and so does all that it starts later."""
    await serving.synchronized()
    assert stat.S_IMODE(serving.control.stat().st_mode) == 0o600
    async with node.kubelet() as kubelet:
        pod, other = await kubelet.pod(), await kubelet.pod()
        await serving.told(pod, "Exists 0/0")
        forks = await kubelet.run(pod, FORKS)
        assert kubelet.first_group(forks) == node.group(pod).name
        await serving.told(pod, "Exists 1/1")
        threads = await kubelet.run(pod, THREADS)
        assert kubelet.first_group(threads) == node.group(pod).name
        await serving.told(pod, "Exists 2/2")
        await kubelet.runs_in_full(pod, threads, THREADS)
        await node.assert_truth(serving, {pod: [forks, threads], other: []})

        told = len(serving.words(pod))
        await kubelet.cri.update_container(threads, cpu_shares=2048)
        await kubelet.remove_container(forks)
        await serving.told(pod, "Exists 1/1")
        assert len(serving.words(pod)) == told + 1, "an update is no event"
        await kubelet.remove(other)
        await serving.told(other, "removed")
        await node.assert_truth(serving, {pod: [threads]})
        await kubelet.remove(pod)
        await serving.told(pod, "removed")
        assert serving.words(pod)[-4:] == ["Exists 2/2", "Exists 1/1", "Exists 0/0", "removed"]
        assert kubelet.cri.failures == []
    await node.assert_truth(serving, {})


async def test_a_pod_without_an_rmid_gets_its_group_when_the_caller_retries(
    node: Node, serving: Program, record: Record
) -> None:
    """Full of others' groups: Failed, CapacityError. One freed: busy in limbo, then Exists, then complete."""
    await serving.synchronized()
    async with node.kubelet() as kubelet:
        first = await kubelet.pod()
        container = await kubelet.run(first, QUIET)
        assert kubelet.first_group(container) == node.group(first).name
        await serving.told(first, "Exists 1/1")
        await node.others.use_up()
        pod = await kubelet.pod()
        await serving.told(pod, "Failed 0/0")
        crowd = [await kubelet.run(pod, FORKS), await kubelet.run(pod, THREADS)]
        assert [kubelet.first_group(it) for it in crowd] == ["", ""], "the pod starts all the same"
        await kubelet.runs_in_full(pod, crowd[1], THREADS)
        await serving.told(pod, "Failed 0/2")

        told = serving.words(pod)
        assert await refusal(serving, pod.uid) == "CapacityError"
        report = await serving.call("retry_all")
        assert (report["capacity_exhausted"], report["groups_created"]) == (True, 0)
        assert await serving.call("retry_container", container_id=crowd[0]) == "partial"
        assert serving.words(pod) == told, "a retry that fails tells nothing"

        node.others.free_one()
        refusals = await until_created(node, serving, pod.uid)
        assert set(refusals) <= {"RmidsBusyError"}
        record("refusals while in limbo", len(refusals))
        await serving.told(pod, "Exists 0/2")
        assert serving.words(pod) == [*told, "Exists 0/2"], "a group made by a retry starts no reconcile"
        assert [await serving.call("retry_container", container_id=it) for it in crowd] == ["reconciled"] * 2
        await serving.told(pod, "Exists 2/2")
        assert serving.words(pod) == [*told, "Exists 0/2", "Exists 1/2", "Exists 2/2"]
        again = await serving.call("retry_group", pod_uid=pod.uid)
        assert (again["type"], again["path"]) == ("Exists", str(node.group(pod)))
        await serving.audited()  # what forked while its parent was moved
        await node.assert_truth(serving, {first: [container], pod: crowd})


async def test_pods_that_follow_each_other_through_limbo(
    node: Node, serving: Program, record: Record
) -> None:
    """On a full machine each pod waits for the RMID of one that goes, hot as it is, and gets it in time."""
    await serving.synchronized()
    await node.others.use_up()
    async with node.kubelet() as kubelet:
        alive: dict[Pod, list[str]] = {}
        refusals: list[str] = []
        for number in range(4):
            pod = await kubelet.pod()
            container = await kubelet.run(pod, WORKS)
            assert kubelet.first_group(container) == "", "no RMID, no group"
            await serving.told(pod, "Failed 0/1")
            if number < 2:
                node.others.free_one()
            else:
                gone = next(iter(alive))
                await kubelet.remove(gone)
                await serving.told(gone, "removed")
                del alive[gone]
            refusals += await until_created(node, serving, pod.uid)
            assert (await serving.call("retry_all"))["containers_reconciled"] == 1
            await serving.told(pod, "Exists 1/1")
            alive[pod] = [container]
            await node.assert_truth(serving, alive)
        assert set(refusals) <= {"RmidsBusyError"}
        record("refusals while in limbo", len(refusals))
        assert kubelet.cri.failures == []
    await node.assert_truth(serving, {})


async def refusal(program: Program, pod_uid: str) -> str | None:
    """Ask for a pod's group once; return by which error that was refused, None where it exists now."""
    try:
        await program.call("retry_group", pod_uid=pod_uid)
    except Refused as refused:
        return refused.error
    return None


async def until_created(node: Node, program: Program, pod_uid: str) -> list[str]:
    """Ask for a pod's group until it exists, at most as long as limbo may take; return the refusals.

    In the beginning the kernel is asked too, before and after: what it says both times is what the program
    must have said between.
    """
    refusals: list[str] = []
    deadline = time.monotonic() + LIMBO
    words = {errno.EBUSY: "RmidsBusyError", errno.ENOSPC: "CapacityError"}
    for asked in range(10**6):
        before = node.others.refusal() if asked < 3 else None
        error = await refusal(program, pod_uid)
        after = node.others.refusal() if before and error else None
        if before == after and before in words:
            assert error == words[before]
        if error is None:
            return refusals
        refusals.append(error)
        assert time.monotonic() < deadline, f"after {LIMBO} s still {error}"
        await asyncio.sleep(0.1)
    raise AssertionError("unreachable: the deadline comes first")
