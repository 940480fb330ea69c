"""What the wire costs: a round trip, the answers to a Synchronize, decoding.

    python benchmarks/bench_wire.py [--trips 2000] [--runs 9]

The plugin's stub lives in a process of its own, with a handler that does nothing; this process is the
runtime, with a blocking socket. A round trip runs from the moment at which the last byte of a call was
handed to the kernel until its answer was read, so what the plugin has not read by then is on its account. A
Synchronize lists 500 pods and 2,500 containers, some 27 MB in messages of under 4 MiB; all answers together
have a bar, since a runtime drops a plugin whose answers take two seconds. Decoding is measured in this
process, beside what the generated code takes by itself for the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a package of the checkout only

import structlog
from attrs import frozen

from benchmarks.inside import ahead_of_others
from benchmarks.node import LARGE, Listener, Node
from benchmarks.report import Bar, Page, Spread, bars, options, require, table
from nri_resctrl_plugin.nri import api, messages
from nri_resctrl_plugin.nri.codec import decode
from nri_resctrl_plugin.nri.stub import Backoff, NriStub
from nri_resctrl_plugin.nri.wire import bytes_field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

REPLY_BAR_MS: Final = 200.0
WARM_UP: Final = 50


class Counting:
    """A handler that counts what it is told."""

    def __init__(self) -> None:
        self.events = 0

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Do nothing."""

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Report a list as a line of JSON."""
        print(json.dumps([len(pods), len(containers)]), flush=True)

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        """Count it."""
        del pod
        self.events += 1

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Count it."""
        del pod, container
        self.events += 1

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None:
        """Report the events so far as a line of JSON."""
        del pod
        print(json.dumps(self.events), flush=True)
        self.events = 0

    remove_pod_sandbox = run_pod_sandbox
    stop_container = remove_container = update_container = start_container


async def serve(path: Path) -> None:
    """Be the plugin until the parent ends it."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    backoff = Backoff(first=0.01, limit=0.05)
    await NriStub(Counting(), name="bench", idx="10", socket_path=path, backoff=backoff).run()


class Plugin:
    """The plugin's process."""

    def __init__(self, listener: Listener) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(listener.path)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def told(self) -> object:
        """Return what it reports next."""
        require(self._process.stdout is not None, "the plugin has an output")
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        require(line, "the plugin lives")
        return json.loads(line)


@frozen
class Trips:
    """Round trips of one kind of call.

    Attributes:
        times: Each, milliseconds.
        payload: Bytes of the call's message.
    """

    times: list[float]
    payload: int

    def at(self, part: float) -> float:
        """Return the time that so large a part of them stayed under."""
        return sorted(self.times)[round(part * (len(self.times) - 1))]


def round_trips(listener: Listener, plugin: Plugin, node: Node, count: int) -> dict[str, Trips]:
    """Make calls of both kinds, one after another; each is answered and handled."""
    pod, container = node.pod(0), node.container(0)
    calls = {
        "RunPodSandbox": bytes_field(1, pod),
        "StartContainer": bytes_field(1, pod) + bytes_field(2, container),
    }
    found = {}
    with listener.accept() as runtime:
        for method, payload in calls.items():
            times = [runtime.call(method, payload)[0] * 1000 for _ in range(WARM_UP + count)][WARM_UP:]
            found[method] = Trips(times, len(payload))
            runtime.call("StopPodSandbox", bytes_field(1, pod))
            require(plugin.told() == WARM_UP + count, f"every {method} was handled once")
    return found


def replies(listener: Listener, plugin: Plugin, node: Node, runs: int) -> list[float]:
    """Synchronize over and over; return the milliseconds that all answers of each took."""
    parts = node.parts()
    times = []
    for run in range(runs + 1):
        with listener.accept() as runtime:
            took = sum(runtime.synchronize(parts)) * 1000
            everything = [node.size.pods, node.size.containers]
            require(plugin.told() == everything, "everything was told")
            if run > 0:  # the first one warms up
                times.append(took)
    return times


def decoding(items: Sequence[bytes], each: Callable[[bytes], object], runs: int) -> Spread:
    """Return the microseconds that one item takes."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        for item in items:
            require(each(item) is not None, "it is decoded")
        times.append((time.perf_counter() - began) * 1e6 / len(items))
    return Spread.of(times)


def main() -> int:
    """Run the benchmark, or the plugin's process of it."""
    parser = options(__doc__)
    parser.add_argument("--trips", type=int, default=2000, help="round trips of each kind (default: 2000)")
    parser.add_argument("--runs", type=int, default=9, help="repetitions of the others (default: 9)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ahead_of_others()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return 0
    node = Node(LARGE)
    page = Page(
        "wire",
        "The wire",
        "What it takes from a runtime's call to the plugin's answer, and to read what a runtime tells.",
        "python benchmarks/bench_wire.py",
    )
    with Listener() as listener, Plugin(listener) as plugin:
        trips = round_trips(listener, plugin, node, arguments.trips)
        reply = Spread.of(replies(listener, plugin, node, arguments.runs))
    pods = [node.pod(number) for number in range(node.size.pods)]
    containers = [node.container(number) for number in range(node.size.pods)]
    ours = {
        "pod": decoding(pods, messages.decode_pod, arguments.runs),
        "container": decoding(containers, messages.decode_container, arguments.runs),
    }
    alone = {
        "pod": decoding(pods, lambda data: decode(data, api.PodSandbox), arguments.runs),
        "container": decoding(containers, lambda data: decode(data, api.Container), arguments.runs),
    }
    page.facts = {
        "round trips": f"{arguments.trips} of each kind, after {WARM_UP} that are not counted",
        "other repetitions": f"{arguments.runs}; median (least to most)",
    }
    page.parts = [
        table(
            ["round trip, milliseconds", "bytes", "median", "95 of 100", "99 of 100", "longest"],
            [
                (name, f"{each.payload:,}", *(f"{each.at(part):.2f}" for part in (0.5, 0.95, 0.99, 1.0)))
                for name, each in trips.items()
            ],
        ),
        table(
            ["Synchronize", "bytes", "messages", "all answers, milliseconds", "bar"],
            [(node.size, *sizes(node), f"{reply:.0f}", f"{REPLY_BAR_MS:g}")],
        ),
        table(
            ["decoding, microseconds", "bytes", "ours", "generated code by itself", "ratio"],
            [
                (
                    name,
                    f"{len(item):,}",
                    f"{ours[name]:.0f}",
                    f"{alone[name]:.0f}",
                    f"{alone[name].median / ours[name].median:.1f}",
                )
                for name, item in (("pod", pods[0]), ("container", containers[0]))
            ],
        ),
    ]
    shown = [
        Bar(f"round trip, {name}", each.at(0.5), f"{each.at(0.5):.2f} ms (99 of 100: {each.at(0.99):.2f})")
        for name, each in trips.items()
    ]
    shown += [
        Bar(f"a {name}: {whose}", each.median / 1000, f"{each.median / 1000:.2f} ms", None, colour)
        for name in ours
        for whose, each, colour in (("ours", ours[name], 1), ("generated", alone[name], 2))
    ]
    page.plot = bars("A call and its answer; reading one item", shown), "round trips and decoding"
    page.write(arguments.out)
    return 0 if reply.median < REPLY_BAR_MS else 1


def sizes(node: Node) -> tuple[str, str]:
    """Return how many bytes and messages list a node."""
    parts = node.parts()
    return f"{sum(map(len, parts)):,}", str(len(parts))


if __name__ == "__main__":
    sys.exit(main())
