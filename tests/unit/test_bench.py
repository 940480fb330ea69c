"""The benchmarks count what they claim to count, and write what they found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import bench_assign, bench_memory, bench_startup, bench_wire, report
from benchmarks.inside import Counts
from benchmarks.node import LARGE, SMALL, Listener, Node, Size
from nri_resctrl_plugin.nri.messages import decode_container, decode_pod
from resctrl import Resctrl, Tid
from resctrl.testing import FakeFs, RecordingFs

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))
FEW = Size(3, 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_one_command_that_its_readme_names(name: str) -> None:
    """Each benchmark runs as a file, and stands in the table of the README."""
    command = [sys.executable, f"benchmarks/{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
    assert f"| `{name}` |" in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


class TestReport:
    """Figures, tables and plots."""

    def test_a_spread_is_median_and_range(self) -> None:
        """The median, the quartiles and both ends."""
        spread = report.Spread.of([5.0, 1.0, 2.0, 4.0, 3.0])
        assert (spread.count, spread.least, spread.low, spread.median, spread.high, spread.most) == (
            5, 1.0, 2.0, 3.0, 4.0, 5.0,
        )  # fmt: skip
        assert f"{spread:.1f}" == "3.0 (1.0 to 5.0)"

    def test_one_measurement_is_its_own_spread(self) -> None:
        """A single run has no range."""
        assert f"{report.Spread.of([7.0]):g}" == "7 (7 to 7)"

    def test_a_page_is_written_with_its_plot(self, tmp_path: Path) -> None:
        """The page names its command and its load, and shows the plot that stands beside it."""
        page = report.Page("x", "Title", "What.", "python benchmarks/x.py", {"runs": 3})
        page.parts = [report.table(["what", "ms"], [("a", 1)]), "A line."]
        page.plot = report.bars("bars", [report.Bar("a", 1.0, "1")]), "words"
        page.write(tmp_path / "new")
        text = (tmp_path / "new" / "x.md").read_text(encoding="utf-8")
        assert text.startswith("# Title\n\nMade by `python benchmarks/x.py`")
        assert "![words](x.svg)" in text
        assert "| what | ms |\n| --- | ---: |\n| a | 1 |\n\nA line.\n" in text
        assert "| runs | 3 |" in text
        assert "| load |" in text
        assert (tmp_path / "new" / "x.svg").exists()

    def test_a_bar_is_as_long_as_its_value(self) -> None:
        """Twice the value, twice the length; a limit is a line at its place."""
        rows = [report.Bar("one & only", 10.0, "10"), report.Bar("two", 20.0, "20", limit=40.0)]
        drawing = ET.fromstring(report.bars("t", rows))  # noqa: S314 - our own
        rects = [each for each in drawing.iter() if each.tag.endswith("rect")][1:]
        lengths = [float(each.get("width", "0")) for each in rects]
        assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)
        line = next(each for each in drawing.iter() if each.tag.endswith("line"))
        start = float(rects[1].get("x", "0"))
        assert float(line.get("x1", "0")) - start == pytest.approx(2 * lengths[1], abs=0.2)

    def test_a_tenfold_is_one_step_on_either_axis(self) -> None:
        """Curves have logarithmic axes, the greater value higher up."""
        curve = report.Curve("c", [(1, 1), (10, 10), (100, 100)])
        drawing = ET.fromstring(report.curves("t", "x", "y", [curve]))  # noqa: S314 - our own
        line = next(each for each in drawing.iter() if each.tag.endswith("polyline"))
        points = [tuple(map(float, each.split(","))) for each in line.get("points", "").split()]
        (x0, y0), (x1, y1), (x2, y2) = points
        assert x1 - x0 == pytest.approx(x2 - x1)
        assert y0 - y1 == pytest.approx(y1 - y2)
        assert x0 < x1
        assert y0 > y1

    def test_what_is_not_so_ends_the_benchmark(self) -> None:
        """A wrong count is no result with a footnote."""
        with pytest.raises(SystemExit, match="not so: all is well"):
            report.require([], "all is well")


class TestNode:
    """What the pretended runtime sends is what a runtime would send."""

    def test_the_sizes(self) -> None:
        """4 KB a pod, 10 KB a container, 27 MB in seven messages on the large node, one on the small."""
        node = Node(LARGE)
        assert len(node.pod(0)) == 3916
        assert len(node.container(0)) == 9974
        assert [len(each.parts()) for each in (Node(SMALL), node)] == [1, 7]
        assert sum(map(len, node.parts())) == 26_917_032

    def test_it_decodes_to_what_it_says(self) -> None:
        """A container names its pod and its cgroup."""
        node = Node(FEW)
        pod, container = decode_pod(node.pod(1)), decode_container(node.container(4))
        assert pod is not None
        assert container is not None
        assert (pod.uid, container.pod_sandbox_id, container.pid) == (node.uid(1), pod.id, node.tids(4)[0])
        assert node.cgroup(4) == f"{pod.cgroup_parent}/cri-containerd-{container.id}.scope"


def test_a_start_makes_exact_calls() -> None:
    """A mkdir a pod; an open, a write and a read of `tasks` a container; an event for each of both."""
    node = Node(FEW)
    run = bench_startup.start(node, node.parts())
    assert run.events == FEW.pods + FEW.containers
    calls = dict(run.startup.calls)
    assert {name: calls.pop(name) for name in ("mkdir", "open to write", "write", "read tasks")} == {
        "mkdir": FEW.pods,
        "open to write": FEW.containers,
        "write": FEW.containers,
        "read tasks": FEW.containers,
    }
    assert sum(calls.values()) <= 8, "what the startup looks at does not grow with the node"
    assert run.startup.took > run.reply > 0
    assert run.audit.took > 0
    assert run.audit.calls["read tasks"] == 2 * FEW.pods, "an audit looks twice at what is new to it"
    assert "write" not in run.audit.calls


class TestStall:
    """How long the loop stood still, whose doing it was, and what that means for the bar."""

    def test_what_holds_the_loop_up_is_its_own(self) -> None:
        """A call that blocks uses no processor, and yet it is the program that stalls."""
        counts = Counts()

        async def blocked() -> None:
            watch = asyncio.create_task(counts.watch(asyncio))
            await asyncio.sleep(0.01)
            time.sleep(0.1)  # noqa: ASYNC251 - what must not be
            await asyncio.sleep(0.01)
            watch.cancel()

        asyncio.run(blocked())
        assert counts.stall > 0.09
        assert counts.own > 0.06

    def test_waiting_for_a_processor_is_the_machines(self) -> None:
        """What the kernel lets the loop's thread wait is left out; the longest of each may be two moments."""
        counts = Counts()
        for late, waited in ((0.2, 0.19), (0.04, 0.0), (0.0, 0.01)):
            counts.woken(late, waited)
        assert (counts.stall, counts.own) == (0.2, 0.04)

    def test_the_bar_is_for_every_run(self) -> None:
        """One run of three that stalls by itself misses it; who waits for a processor is counted and told."""

        def run(stall: float, own: float, audit: float = 1.0) -> bench_startup.Start:
            stretch = bench_startup.Stretch
            return bench_startup.Start(9.0, 8, stretch(99.0, stall, own, {}), stretch(9.0, audit, audit, {}))

        good, waited, bad = run(40.0, 40.0), run(80.0, 45.0), run(51.0, 51.0)
        assert bench_startup.missed(LARGE, [good, waited, waited]) == []
        assert bench_startup.missed(LARGE, [good, good, bad]) == [f"{LARGE}: startup: stall"]
        assert bench_startup.missed(LARGE, [good, good, run(1.0, 1.0, 60.0)]) == [f"{LARGE}: audit: stall"]
        rows = bench_startup.rows_of(LARGE, [good, waited, bad])
        assert (f"{LARGE}: startup: longest stall", "51.0 (40.0 to 80.0)", "2 of 3") in [
            (row[0], row[1], row[3]) for row in rows
        ]


@pytest.mark.parametrize("size", bench_memory.BARS, ids=str)
def test_memory_stays_under_its_bars(size: Size) -> None:
    """110 pods: settled under 40 MB. 500 pods with 2,500 containers: under 60 MB, never over 110 MB."""
    node, bars = Node(size), bench_memory.BARS[size]
    reading = bench_memory.one_run(node, node.parts(), reconnects=1)
    assert reading.started < reading.settled < bars.settled
    assert reading.again < bars.settled
    assert reading.again_peak < (bars.peak or 110.0)


class TestWire:
    """Each call is answered and handled once."""

    def test_counts(self) -> None:
        """Round trips and lists reach the handler as often as they were made."""
        node = Node(FEW)
        with Listener() as listener, bench_wire.Plugin(listener) as plugin:
            trips = bench_wire.round_trips(listener, plugin, node, 10)
            replies = bench_wire.replies(listener, plugin, node, 2)
        assert {name: len(each.times) for name, each in trips.items()} == {
            "RunPodSandbox": 10,
            "StartContainer": 10,
        }
        assert trips["StartContainer"].payload == 3 + 3916 + 3 + 9974
        assert len(replies) == 2

    def test_a_quantile_is_one_of_the_times(self) -> None:
        """The median is in the middle, the last one the longest."""
        trips = bench_wire.Trips([3.0, 1.0, 2.0], 0)
        assert [trips.at(part) for part in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]

    def test_what_cannot_be_decoded_is_no_figure(self) -> None:
        """A decoder that gives nothing would be fast."""
        with pytest.raises(SystemExit, match="decoded"):
            bench_wire.decoding([b""], lambda _: None, 1)


class TestAssign:
    """What is counted on the kernel, counted here as far as it can be."""

    def test_a_thousand_threads_are_one_open_and_two_writes(self) -> None:
        """Ids of five digits: 682 of them fit a page."""
        fs = RecordingFs(FakeFs(alive=lambda _: True))
        resctrl = Resctrl.with_provider(fs)
        group = resctrl.create_group("x")
        fs.forget()
        resctrl.assign_tasks(group, [Tid(10_000 + number) for number in range(1000)])
        assert [call.operation for call in fs.calls] == ["write_all", "write", "write"]
        assert [len(call.chunk) for call in fs.calls] == [0, 682 * 6, 318 * 6]

    def test_calls_are_counted_between_the_marks(self) -> None:
        """Calls before the first mark, after a closing one and of a warm-up are nobody's."""
        mark = bench_assign.MARK
        trace = [
            'openat(AT_FDCWD, "lib", O_RDONLY) = 3',
            f'access("{mark}", F_OK) = -1 ENOENT',
            'write(3, "1\\n", 2) = 2',
            f'access("{mark}ours", F_OK) = -1 ENOENT',
            'openat(AT_FDCWD, "tasks", O_WRONLY) = 3',
            'write(3, "1,2\\n", 4) = 4',
            '17    write(3, "3\\n", 2) = 2',
            "--- SIGCHLD {si_signo=SIGCHLD} ---",
            f'access("{mark}", F_OK) = -1 ENOENT',
            "close(3) = 0",
        ]
        assert bench_assign.calls_between_marks(trace) == {"ours": {"openat": 1, "write": 2}}

    def test_calls_that_were_not_counted_miss_their_bars(self) -> None:
        """Without strace the two bars for calls are not claimed, and the command's status says so."""
        ways = (bench_assign.CLASSIC, bench_assign.OURS, bench_assign.RECONCILE)
        times = {way: [time] for way, time in zip(ways, (10.0, 2.0, 9.0), strict=True)}
        found = bench_assign.Found({"1000": times}, {}, {}, "6.12")
        untold = "calls (not counted: strace is not installed)"
        assert found.missed() == [untold]
        assert f"Missed: {untold}." in bench_assign.page_of(found, "here", 1).text()

    def test_a_missed_bar_is_told(self) -> None:
        """Each of the three bars by itself."""
        ways = (bench_assign.CLASSIC, bench_assign.OURS, bench_assign.RECONCILE)

        def found(times: tuple[float, ...], calls: tuple[int, ...]) -> bench_assign.Found:
            return bench_assign.Found(
                {"1000": {way: [time] for way, time in zip(ways, times, strict=True)}},
                {},
                {way: {"write": count} for way, count in zip(ways, calls, strict=True)},
                "6.12",
            )

        assert found((10.0, 2.0, 9.0), (3000, 4, 18)).missed() == []
        assert found((9.0, 2.0, 9.0), (3000, 4, 18)).missed() == ["5 times less time"]
        assert found((10.0, 2.0, 9.0), (300, 16, 18)).missed() == ["20 times fewer calls"]
        assert found((10.0, 2.0, 9.0), (3000, 21, 18)).missed() == ["0.02 calls a thread"]
        text = bench_assign.page_of(found((10.0, 2.0, 9.0), (3000, 4, 18)), "here", 1).text()
        assert "| 1,000 | 10.00 (10.00 to 10.00) | 2.00 (2.00 to 2.00) |" in text
        assert "| all, a thread | 3.0000 | 0.0040 | 0.0180 |" in text
