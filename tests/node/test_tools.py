"""`doctor` and `top` on a node: the first two things that somebody does there."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.node.workloads import PROCESSES

if TYPE_CHECKING:
    from tests.node.node import Node


async def call(node: Node, *arguments: str) -> tuple[int, Any]:
    """Run the installed program; return its status and the JSON that it printed."""
    program = await asyncio.create_subprocess_exec(
        str(node.site.program), *arguments, f"--resctrl-root={node.site.resctrl_root}",
        f"--group-prefix={node.site.prefix}", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await program.communicate()
    assert program.returncode is not None
    return program.returncode, json.loads(output)


async def test_the_doctor_finds_the_node_usable(node: Node) -> None:
    """No rung fails: status 0; the runtime's version is the one that runs; the probe makes a group."""
    status, told = await call(
        node, "doctor", "--json", "--probe", f"--socket-path={node.containerd.nri_socket}"
    )
    rungs = {each["rung"]: each for each in told["rungs"]}
    assert (status, told["usable"], told["failed"]) == (0, True, []), told
    well = (
        "kernel",
        "mount",
        "rmids",
        "permission",
        "pid-namespace",
        "cgroups",
        "packages",
        "nri",
        "runtime",
    )
    assert {rungs[name]["level"] for name in (*well, "probe")} == {"ok"}, told
    version = ".".join(map(str, node.site.tools.containerd_version))
    assert rungs["runtime"]["found"].startswith(f"containerd {version}")
    assert node.our_groups() == set()


async def test_top_shows_every_group(node: Node) -> None:
    """A pod's threads, put into somebody else's group: the row has as many as the group, and its counters."""
    async with node.kubelet() as kubelet:
        pod = await kubelet.pod()
        container = await kubelet.run(pod, PROCESSES)
        await kubelet.runs_in_full(pod, container, PROCESSES)
        group = node.witness.mon_groups / f"{node.site.others_prefix}shown"
        await node.others.make(group)
        threads = [
            it.tid for it in node.witness.threads(f"/{node.containerd.name}/") if container in it.cgroup
        ]
        for tid in threads:
            (group / "tasks").write_text(str(tid))
        status, told = await call(node, "top", "--once", "-o", "json")
        (row,) = [each for each in told["groups"] if each["path"] == str(group)]
        assert (status, row["kind"], row["ours"], row["threads"]) == (0, "monitor", False, len(threads))
        assert len(threads) == PROCESSES.threads
        assert row["rates"]["mbm_total_bytes"]["complete"] is True
