"""S8, the forks: containers whose processes fork without pause while they are assigned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.scenarios.scene import Scene

if TYPE_CHECKING:
    from tests.worlds import World

ROUNDS: Final = 50
LINEAGES: Final = 4


@pytest.mark.parametrize("generation", [0.02, 0.001, 0.0], ids=["20ms", "1ms", "0"])
async def test_containers_that_fork_without_pause(world: World, generation: float) -> None:
    """After one reconcile and one audit nobody is outside in any of 50 rounds, as the frozen cgroup shows.

    A fork that is under way while its parent is moved brings a child that is outside. The audit comes at
    once, perhaps during such forks; what these and its own writes bring outside it must find by itself.
    """
    async with Scene(world) as scene:
        pod = scene.pod("one")
        for number in range(ROUNDS):
            handle = world.new_forking_container(LINEAGES, generation)
            await scene.synchronize([pod], [scene.container(pod, handle)])
            await scene.plugin.audit_once()
            with world.frozen(handle):
                threads, inside = world.threads_of(handle), scene.tasks(pod)
            assert len(threads) >= LINEAGES
            assert threads - inside == set(), f"in round {number}"
            world.end_container(handle)
