"""Run agent.py on a node in memory for some seconds: `python agent_demo.py`. No root, no RDT, no runtime.

The runtime's side of NRI is the one of `nri-resctrl-plugin demo`, the kernel the fake of `resctrl.testing`;
plugin and agent are the real ones. There is room for two groups: the third pod is refused, until one of the
others ends and the agent tries again.
"""

import asyncio
import contextlib
import functools
import tempfile
from pathlib import Path
from typing import cast

import structlog
from agent import agent

from nri_resctrl_plugin import ResctrlPlugin
from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.jsonl import payload
from nri_resctrl_plugin.nri.messages import Container, PodSandbox
from resctrl import RealFs, Resctrl, Sampler
from resctrl.testing import FakeFs, FakePidSource

SECONDS = 14
ONE_ENDS_AT = 3
LIMBO = 1.0


async def node(kernel: FakeFs, threads: FakePidSource, runtime: RuntimeSide) -> None:
    """Start three pods, let them work, end one, and let the others work on."""
    await runtime.synchronized()
    workers = {}
    for uid in ("web", "db", "batch"):
        workers[uid] = kernel.spawn()
        threads.set(f"/kubepods/{uid}", [workers[uid]])
        await runtime.run_pod(PodSandbox(id=f"sandbox-{uid}", uid=uid, pid=1))
        await runtime.start_container(
            Container(id=uid, pod_sandbox_id=f"sandbox-{uid}", cgroups_path=f"/kubepods/{uid}")
        )
    for second in range(SECONDS):
        for worker in workers.values():
            kernel.move_bytes(worker, 5_000_000, local=4_000_000)
        await asyncio.sleep(1)
        if second == ONE_ENDS_AT:
            kernel.end(workers.pop("db"))
            await runtime.stop_pod("sandbox-db")
            await runtime.remove_pod("sandbox-db")


async def story(kernel: FakeFs, sampler: Sampler[RealFs], resctrl: Resctrl[RealFs]) -> None:
    """Put the agent on the node, and take it off when the node's story ends."""
    threads = FakePidSource()
    plugin = ResctrlPlugin.with_pid_source(None, resctrl, threads)
    with tempfile.TemporaryDirectory() as directory:
        async with RuntimeSide(Path(directory, "nri.sock")) as runtime:
            here = functools.partial(plugin.run, socket_path=runtime.socket_path)
            plugin.run = here  # type: ignore[method-assign]  # the agent serves the machine's own runtime
            following = asyncio.create_task(agent(plugin, sampler))
            await node(kernel, threads, runtime)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def main() -> None:
    """Make the kernel, and tell the story."""
    kernel = FakeFs(num_rmids=3, limbo=LIMBO)
    resctrl = cast("Resctrl[RealFs]", Resctrl.with_provider(kernel))  # the agent is typed for the real one
    with Sampler(resctrl) as sampler:
        asyncio.run(story(kernel, sampler, resctrl))


if __name__ == "__main__":
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=payload)])
    main()
