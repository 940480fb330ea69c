"""S7, the races: containers and pods go away while something is done about them."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from nri_resctrl_plugin.errors import PodNotFoundError
from tests.scenarios.scene import Held, Scene
from tests.worlds import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from tests.worlds import World

T = TypeVar("T")


def _true_of(held: Held) -> Callable[[], Awaitable[bool | None]]:
    async def reached() -> bool | None:
        return held.reached or None

    return reached


@asynccontextmanager
async def _running(call: Coroutine[object, object, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Let a call run beside the body, and not beyond it."""
    task = asyncio.create_task(call)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_pod_that_ends_while_its_group_is_made(world: World) -> None:
    """The group that comes too late is deleted; a pod that was never told of is not told removed."""
    async with Scene(world) as scene:
        pod, held = scene.pod("one"), Held()
        scene.faults.before("create_dir", held)
        await scene.plugin.run_pod_sandbox(pod.sandbox)
        await eventually(_true_of(held), "the creation")
        await scene.plugin.stop_pod_sandbox(pod.sandbox)
        held.let_go()
        await scene.settled()
        assert scene.told == []
        assert scene.groups() == set()


async def test_a_pod_that_ends_while_its_group_is_retried(world: World) -> None:
    """The retry's caller is told that the pod is gone, and the new group is deleted."""
    async with Scene(world) as scene:
        pod, held = scene.pod("one"), Held()
        scene.faults.fail("create_dir", errno.ENOSPC)
        await scene.run(pod)
        scene.faults.before("create_dir", held)
        retried = scene.plugin.retry_group_creation(pod.uid)
        async with _running(retried) as task:
            await eventually(_true_of(held), "the creation")
            await scene.plugin.stop_pod_sandbox(pod.sandbox)
            held.let_go()
            with pytest.raises(PodNotFoundError):
                await task
        await scene.settled()
        assert scene.told == [pod.failed(0), pod.removed]
        assert scene.groups() == set()


async def test_a_pod_that_comes_back_while_its_group_is_deleted(world: World) -> None:
    """The late deletion does not take the new life's group."""
    async with Scene(world) as scene:
        pod, held, handle = scene.pod("one"), Held(), world.new_container(2)
        await scene.run(pod)
        scene.faults.before("remove_dir", held)
        await scene.plugin.stop_pod_sandbox(pod.sandbox)
        await eventually(_true_of(held), "the deletion")
        again = pod.another_sandbox("sandbox-again")
        await scene.plugin.run_pod_sandbox(again.sandbox)
        held.let_go()
        await scene.settled()
        await scene.start(again, handle)
        assert scene.told == [pod.there(0, 0), pod.removed, pod.there(0, 0), pod.there(1, 1)]
        assert scene.tasks(pod) == world.threads_of(handle)


async def test_a_container_that_ends_while_it_is_reconciled(world: World) -> None:
    """It is counted no more, and the outcome that comes late counts for nothing."""
    async with Scene(world) as scene:
        pod, held, handle = scene.pod("one"), Held(), world.new_container()
        await scene.run(pod)
        scene.faults.before("write_all", held)
        container = scene.container(pod, handle)
        async with _running(scene.plugin.start_container(pod.sandbox, container)) as task:
            await eventually(_true_of(held), "the reconcile")
            await scene.plugin.remove_container(pod.sandbox, container)
            held.let_go()
            await task
        await scene.settled()
        assert scene.plugin.snapshot() == {pod.uid: pod.there(0, 0)}
        assert scene.told[-1] == pod.there(0, 0)
        assert scene.plugin.container_state(handle.name) is None


async def test_a_pod_that_ends_while_its_container_is_reconciled(world: World) -> None:
    """The group is deleted after the reconcile has ended, and nothing of the pod is left."""
    async with Scene(world) as scene:
        pod, held, handle = scene.pod("one"), Held(), world.new_container()
        await scene.run(pod)
        scene.faults.before("write_all", held)
        async with _running(scene.plugin.start_container(pod.sandbox, scene.container(pod, handle))) as task:
            await eventually(_true_of(held), "the reconcile")
            await scene.plugin.stop_pod_sandbox(pod.sandbox)
            held.let_go()
            await task
        await scene.settled()
        assert scene.told[-1] == pod.removed
        assert scene.groups() == set()
