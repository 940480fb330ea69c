"""What the plugin adds to the whole life of a pod under a real containerd.

    python benchmarks/bench_lifecycle.py [--pairs 100]

Each pair is one pod life with the plugin connected and one without, in alternating order, so that a machine
that grows slower or faster meets both alike. A life is RunPodSandbox, CreateContainer, StartContainer,
StopContainer, RemoveContainer, StopPodSandbox, RemovePodSandbox over CRI. The plugin lives in a process of
its own, over the fake resctrl with the machine's own threads; connecting and disconnecting are not timed. It
needs root, as the containerd lane does. Bar: the median of the paired differences is under 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `tests` is a package of the checkout only

from benchmarks.report import Bar, Page, Spread, bars, options, require, table
from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.events import PodResctrlRemoved
from nri_resctrl_plugin.plugin import ResctrlPlugin
from resctrl import Resctrl
from resctrl.testing import FakeFs
from tests.e2e import observer
from tests.e2e.containerd import Containerd, obstacle
from tests.e2e.packages import PackageStore, Unobtainable, default_cache
from tests.e2e.pods import PodMaker
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox

BAR_MS = 10.0
WARM_UP = 5


def main() -> int:
    """Run the benchmark, or the plugin's process of it."""
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="pairs that are counted (default: 100)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return 0
    if (reason := obstacle()) is not None:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    try:
        with PackageStore(default_cache()) as store:
            tools = store.tools()
            containerd = Containerd(tools)
    except Unobtainable as err:
        print(f"cannot run here: {err}", file=sys.stderr)
        return 2
    try:
        page = asyncio.run(measure(containerd, arguments.pairs))
    finally:
        left = containerd.close()
    page.facts = {"containerd": ".".join(map(str, tools.containerd_version)), **page.facts}
    page.write(arguments.out)
    return 1 if left or "MISSED" in page.facts.values() else 0


async def measure(containerd: Containerd, pairs: int) -> Page:
    """Measure pairs of lives and return what they tell."""
    page = Page(
        "lifecycle",
        "The life of a pod",
        "A pod's whole life over CRI, from RunPodSandbox to RemovePodSandbox, with the plugin connected and "
        "without it, in alternating order, under a real containerd.",
        "python benchmarks/bench_lifecycle.py",
    )
    await containerd.start()
    times: dict[bool, list[float]] = {True: [], False: []}
    with PluginProcess(containerd) as plugin:
        async with PodMaker(containerd) as maker:
            for number in range(WARM_UP + pairs):
                for connected in (True, False) if number % 2 else (False, True):
                    if connected:
                        await plugin.connect()
                    took = await life(maker)
                    if connected:
                        await plugin.disconnect()
                    if number >= WARM_UP:
                        times[connected].append(took * 1000)
            failures = maker.cri.failures
    require(plugin.pods_seen == WARM_UP + pairs, "the plugin saw each pod that it was there for, once")
    require(not failures, "no CRI call failed")
    added = Spread.of([with_it - without for with_it, without in zip(times[True], times[False], strict=True)])
    spreads = {connected: Spread.of(times[connected]) for connected in (False, True)}
    page.facts = {
        "pairs": f"{pairs}, after {WARM_UP} that are not counted",
        "pods seen by the plugin": f"{plugin.pods_seen}, each that it was there for",
        f"bar of {BAR_MS:g} ms for the difference": "met" if added.median < BAR_MS else "MISSED",
    }
    page.parts = [
        table(
            ["milliseconds", "median", "first quartile", "third quartile"],
            [
                (name, f"{each.median:.1f}", f"{each.low:.1f}", f"{each.high:.1f}")
                for name, each in (
                    ("a life without the plugin", spreads[False]),
                    ("a life with the plugin", spreads[True]),
                    ("difference of a pair", added),
                )
            ],
        ),
        f"A life costs {plugin.cpu_ms:.1f} ms of processor time in the plugin's process, its connecting too.",
    ]
    page.plot = (
        bars(
            "The life of a pod",
            [
                Bar("without the plugin", spreads[False].median, f"{spreads[False].median:.1f} ms"),
                Bar("with the plugin", spreads[True].median, f"{spreads[True].median:.1f} ms", None, 1),
                Bar(
                    "difference (line: the bar)", max(added.median, 0.0), f"{added.median:.1f} ms", BAR_MS, 2
                ),
            ],
        ),
        "the life of a pod with and without the plugin",
    )
    return page


async def life(maker: PodMaker) -> float:
    """Live one pod's life; returns its seconds."""
    begin = time.perf_counter()
    pod = await maker.pod()
    container = await maker.container(pod, start=False)
    await maker.cri.start_container(container)
    await maker.remove_container(container)
    await maker.cri.stop_pod(pod.sandbox_id)
    await maker.cri.remove_pod(pod.sandbox_id)
    took = time.perf_counter() - begin
    await maker.remove(pod)  # CRI leaves the pod's own cgroup; a kubelet removes it, untimed here
    return took


class PluginProcess:
    """The plugin in its own process, connected when told so.

    Attributes:
        pods_seen: How many pods it saw come and go; known once the context is left, as is the next.
        cpu_ms: Processor time that it took for one of them, in milliseconds.
    """

    def __init__(self, containerd: Containerd) -> None:
        self.pods_seen = 0
        self.cpu_ms = 0.0
        self._containerd = containerd
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", containerd.nri_socket],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        output, _ = self._process.communicate(timeout=10)
        seen, cpu = output.splitlines()[-1].split()
        self.pods_seen = int(seen)
        self.cpu_ms = float(cpu) * 1000 / max(self.pods_seen, 1)

    async def connect(self) -> None:
        """Connect, and wait until containerd sends it events and it has nothing left to do."""
        await self._tell("connect", "connected")
        if self._process.stdout is not None:
            self._process.stdout.readline()

    async def disconnect(self) -> None:
        """Disconnect, and wait until containerd knows."""
        await self._tell("disconnect", "closed")

    async def _tell(self, word: str, sign: str) -> None:
        def signs() -> int:
            return sum(
                "plugin" in line and line.endswith(f'{sign}"') for line in self._containerd.log.splitlines()
            )

        before = signs()
        if self._process.stdin is not None:
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()
        await until(f"containerd says that the plugin is {sign}", lambda: signs() > before)


class SynchronizedPlugin(ResctrlPlugin[FakeFs]):
    """The plugin, telling when it has taken in everything that exists."""

    synchronized: asyncio.Event

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Take in everything that exists."""
        await super().synchronize(pods, containers)
        self.synchronized.set()


async def serve(socket: Path) -> None:
    """Be the plugin's process: connect and disconnect as standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    resctrl = Resctrl.with_provider(FakeFs(num_rmids=256, alive=observer.exists))
    plugin = SynchronizedPlugin.with_resctrl(ResctrlPluginConfig(), resctrl)
    if not isinstance(plugin, SynchronizedPlugin):
        raise TypeError(plugin)
    plugin.synchronized = asyncio.Event()
    async with plugin:
        serving: asyncio.Task[None] | None = None
        record = plugin.record_events()
        begin = time.process_time()
        while word := await words.readline():
            if word == b"connect\n":
                plugin.synchronized.clear()
                serving = asyncio.create_task(plugin.run(socket_path=socket))
                await plugin.synchronized.wait()
                await plugin.settled()
                print("ready", flush=True)
            elif serving is not None:
                serving.cancel()
                await asyncio.wait({serving})
        seen = sum(isinstance(event, PodResctrlRemoved) for event in record.events)
        print(seen, time.process_time() - begin)


if __name__ == "__main__":
    sys.exit(main())
