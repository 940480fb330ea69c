"""Which pods get groups: by namespace and label, and for good."""

from __future__ import annotations

import pytest

from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.nri.messages import PodSandbox, RuntimeInfo
from nri_resctrl_plugin.selection import Selection
from tests.plugin_support import bench, container, run

BOTH = ResctrlPluginConfig(namespaces=("web", "db"), pod_labels={"team": "a", "tier": "1"})


def sandbox(namespace: str = "", sandbox_id: str = "s", **labels: str) -> PodSandbox:
    """Return a sandbox of a pod in a namespace, with labels."""
    return PodSandbox(id=sandbox_id, uid="u", namespace=namespace, labels=labels, pid=1)


def test_without_a_choice_every_pod_is_selected() -> None:
    """Also one that the runtime gives no namespace."""
    selection = Selection(ResctrlPluginConfig())
    assert selection.runs(sandbox())
    assert selection.runs(sandbox("kube-system", a="b"))


@pytest.mark.parametrize(
    ("pod", "chosen"),
    [
        (sandbox("web", team="a", tier="1"), True),
        (sandbox("db", team="a", tier="1", more="x"), True),
        (sandbox("other", team="a", tier="1"), False),
        (sandbox("", team="a", tier="1"), False),
        (sandbox("web", team="a"), False),
        (sandbox("web", team="a", tier="2"), False),
        (sandbox("web"), False),
    ],
)
def test_a_pod_needs_one_of_the_namespaces_and_all_labels(pod: PodSandbox, chosen: bool) -> None:
    """Both conditions hold together."""
    assert Selection(BOTH).runs(pod) is chosen
    assert Selection(BOTH).starts(pod, container("c", pod.id)) is chosen
    assert (Selection(BOTH).listed([pod], [])[0] == [pod]) is chosen


def test_a_listing_leaves_out_containers_with_their_pods() -> None:
    """A container of a pod that is not listed at all is not judged."""
    web, other = sandbox("web", "s1"), sandbox("other", "s2")
    boxes = [container("c1", "s1"), container("c2", "s2"), container("c3", "unheard")]
    selection = Selection(ResctrlPluginConfig(namespaces=("web",)))
    assert selection.listed([web, other], boxes) == ([web], [boxes[0], boxes[2]])
    assert [selection.knows(name) for name in ("s1", "s2", "unheard")] == [True, False, True]


@pytest.mark.parametrize(("first", "then"), [("web", "other"), ("other", "web")])
def test_a_choice_holds_until_the_removal(first: str, then: str) -> None:
    """Later words that say otherwise, or carry no pod, change nothing of it; then it may be made anew."""
    for listed in (False, True):
        selection = Selection(ResctrlPluginConfig(namespaces=("web",)))
        chosen, said = sandbox(first), sandbox(then)
        if listed:
            selection.listed([chosen], [])
        assert selection.runs(chosen) is (first == "web")
        for _ in range(2):
            assert selection.runs(said) is (first == "web")
            assert selection.starts(said, container("c", "s")) is (first == "web")
            assert selection.starts(None, container("c", "s")) is (first == "web")
            assert selection.knows("s") is (first == "web")
            assert bool(selection.listed([said], [])[0]) is (first == "web")
        assert selection.forget("s") is (first == "web")
        assert selection._chosen == {}
        assert selection.forget("s")
        assert selection.starts(None, container("c", "s"))
        assert selection.runs(said) is (then == "web")


@pytest.mark.parametrize("namespace", ["web", "other"])
def test_a_late_start_leaves_nothing_behind(namespace: str) -> None:
    """It is judged, and forgotten: its sandbox may be gone already, and nobody would tell of that again."""
    selection = Selection(ResctrlPluginConfig(namespaces=("web",)))
    selection.runs(sandbox(namespace))
    selection.forget("s")
    assert selection.starts(sandbox(namespace), container("c", "s")) is (namespace == "web")
    assert selection._chosen == {}


def test_a_listing_forgets_what_it_does_not_list() -> None:
    """What the runtime does not list any more is gone, so nothing piles up."""
    selection = Selection(ResctrlPluginConfig(namespaces=("web",)))
    for number in range(5):
        selection.runs(sandbox("other", f"s{number}"))
    selection.listed([sandbox("other", "s1"), sandbox("web", "s7")], [])
    assert selection._chosen == {"s1": False, "s7": True}


def test_a_pod_that_is_left_out_leaves_no_trace() -> None:
    """From its run to its removal nothing of it reaches the table, so nothing of it is remembered there."""

    async def main() -> None:
        it = bench(ResctrlPluginConfig(namespaces=("web",)))
        other = sandbox("other")
        await it.plugin.run_pod_sandbox(other)
        await it.plugin.start_container(other, container("c", "s"))
        await it.plugin.stop_pod_sandbox(other)
        state = it.plugin._driver.table._state
        assert (state.sandboxes, state.containers, it.plugin._driver.untouched) == ({}, {}, True)
        await it.plugin.remove_pod_sandbox(other)
        assert it.plugin._selection.knows("s")
        await it.plugin.close()

    run(main())


def test_the_choice_can_come_from_the_runtime() -> None:
    """A plugin that the runtime launches has its settings from there, and the choice with them."""

    async def main() -> None:
        it = bench()
        await it.plugin.configure(RuntimeInfo(config="namespaces: [web]"))
        await it.plugin.synchronize([sandbox("other", "s1"), sandbox("web", "s2")], [])
        await it.plugin.settled()
        assert list(it.plugin._driver.table._state.sandboxes) == ["s2"]
        await it.plugin.close()

    run(main())
