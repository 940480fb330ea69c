"""What the runtime says, in the pod table's words."""

from __future__ import annotations

import pytest
from attrs import evolve

from nri_resctrl_plugin.facts import container_told, pod_ref, synchronized
from nri_resctrl_plugin.model import ContainerCgroup
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox
from nri_resctrl_plugin.pods import PodRef
from tests.plugin_support import container, pod


def test_a_pod_without_a_uid_goes_by_its_sandbox() -> None:
    """Two such pods never share a group."""
    assert pod_ref(pod("u", "s")) == PodRef("s", "u")  # type: ignore[arg-type]
    assert pod_ref(PodSandbox(id="s")) == PodRef("s", "s")  # type: ignore[arg-type]


def test_a_container_takes_from_its_pod_what_it_does_not_say() -> None:
    """The cgroup parent is the pod's; so is the sandbox id where the container names none."""
    told = container_told(evolve(container("c", ""), pid=7), pod("u", "s"))
    assert told.sandbox_id == "s"
    assert told.cgroup == ContainerCgroup(cgroups_path="/kubepods/c", cgroup_parent="/kubepods/podu", pid=7)
    assert container_told(container("c", "x"), pod("u", "s")).sandbox_id == "x"
    assert container_told(container("c", ""), None).sandbox_id == ""


@pytest.mark.parametrize(
    ("sandbox", "cgroup"),
    [
        (pod("u", "s"), ContainerCgroup(cgroups_path="/kubepods/podu/s", pid=1)),
        (PodSandbox(id="s", cgroup_parent="/p", pid=9), ContainerCgroup(cgroups_path="/p")),
        (
            PodSandbox(id="s", cgroup_parent="kubepods-podu.slice"),
            ContainerCgroup(cgroups_path="kubepods.slice::kubepods-podu.slice"),
        ),
        (PodSandbox(id="s", pid=9), None),
    ],
)
def test_a_sandbox_has_a_cgroup_that_goes_with_it(
    sandbox: PodSandbox, cgroup: ContainerCgroup | None
) -> None:
    """Its own; that of its pod where it has no pause process, in both ways of naming it; or none is known."""
    assert pod_ref(sandbox).cgroup == cgroup


@pytest.mark.parametrize(
    ("state", "pid", "started"),
    [
        (ContainerStatus.RUNNING, 7, True),
        (ContainerStatus.RUNNING, 0, True),
        (ContainerStatus.PAUSED, 7, True),
        (ContainerStatus.CREATED, 0, False),
        (ContainerStatus.CREATED, 7, False),
        (ContainerStatus.UNKNOWN, 7, True),
        (ContainerStatus.UNKNOWN, 0, False),
    ],
)
def test_which_listed_containers_run(state: ContainerStatus, pid: int, started: bool) -> None:
    """Running and paused ones do, created ones do not; without a state the pid decides."""
    fact = synchronized([pod("u", "s")], [evolve(container("c", "s", state), pid=pid)])
    assert [each.started for each in fact.containers] == [started]


def test_a_container_listed_as_stopped_is_left_out() -> None:
    """Runtimes list none; one that does means nothing that counts."""
    fact = synchronized([pod("u", "s")], [container("c", "s", ContainerStatus.STOPPED)])
    assert fact.containers == ()


@pytest.mark.parametrize(
    ("sandbox", "containers", "counts"),
    [
        (PodSandbox(id="s", uid="u", pid=7, cgroups_path="/p/s"), [], True),
        (PodSandbox(id="s", uid="u", pid=0, cgroups_path="/p/s"), [], True),
        (PodSandbox(id="s", uid="u", pid=7, cgroups_path=""), [], True),
        (PodSandbox(id="s", uid="u"), [], False),
        (PodSandbox(id="s", uid="u"), [container("c", "s", ContainerStatus.CREATED)], False),
        (PodSandbox(id="s", uid="u"), [container("c", "s", ContainerStatus.STOPPED)], False),
        (PodSandbox(id="s", uid="u"), [container("c", "other")], False),
        (PodSandbox(id="s", uid="u"), [container("c", "s")], True),
    ],
)
def test_a_stopped_sandbox_that_is_still_listed_is_no_pod(
    sandbox: PodSandbox, containers: list[Container], counts: bool
) -> None:
    """No pid, no cgroup path and nothing running: stopped. CRI-O's pods without a pid are not."""
    fact = synchronized([sandbox], containers)
    assert (fact.pods, fact.resting) == (((pod_ref(sandbox),), ()) if counts else ((), (pod_ref(sandbox),)))
