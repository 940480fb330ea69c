"""Tell each second what the pods of a node do to cache and memory: `python agent.py`, as root on the node."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from nri_resctrl_plugin import PodResctrlAddOrUpdate, ResctrlPlugin
from nri_resctrl_plugin.jsonl import payload
from resctrl import RealFs, Resctrl, Sampler


async def agent(plugin: ResctrlPlugin[RealFs], sampler: Sampler[RealFs]) -> None:
    """Follow the pods, sample them in a thread, and try again what was refused: each on its own cadence."""

    async def every(seconds: float, call: Callable[[], Awaitable[object]]) -> None:
        while await asyncio.sleep(seconds, result=True):
            await call()

    async with plugin, asyncio.TaskGroup() as tasks:
        tasks.create_task(plugin.run())
        tasks.create_task(every(10, plugin.retry_all_once))
        tasks.create_task(every(1, lambda: asyncio.to_thread(_report, sampler, plugin.snapshot().values())))
        async for event in plugin.events():
            await structlog.get_logger().ainfo("pod", told=event)


def _report(sampler: Sampler[RealFs], pods: Iterable[PodResctrlAddOrUpdate]) -> None:
    groups = {group: pod.pod_uid for pod in pods for group in pod.groups}
    for group in groups.keys() ^ sampler.groups:
        (sampler.add if group in groups else sampler.discard)(group)
    for group, reading in sampler.sample().items():
        totals = {event: reading.total(event) for event in reading.events}  # each says if it is complete
        structlog.get_logger().info("sample", pod=groups[group], group=group, **totals)


if __name__ == "__main__":
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=payload)])
    with Sampler(Resctrl()) as sampler:
        asyncio.run(agent(ResctrlPlugin(), sampler))
