"""Metrics and health: what is told of pods, of the plugin's own work, and whether it lives and is ready."""

from __future__ import annotations

import asyncio
import errno
import socket
import socketserver
import threading
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from nri_resctrl_plugin import Exists, Failed, PodResctrlAddOrUpdate, PodResctrlRemoved, PodUid
from nri_resctrl_plugin.metrics import (
    HealthAddress,
    HealthServer,
    HealthServerError,
    Instruments,
    MetricNames,
    PodCollector,
    PodView,
    TimedHandler,
    counted,
)
from nri_resctrl_plugin.metrics.names import LABELS, metric_name
from nri_resctrl_plugin.metrics.server import CONNECTIONS
from nri_resctrl_plugin.nri.messages import PodSandbox
from resctrl import EventKind, Resctrl, ResctrlError, RmidsBusyError
from resctrl.monitoring import domain_named
from resctrl.testing import FakeFs, FaultyFs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from nri_resctrl_plugin.nri.handler import NriHandler
    from resctrl import FsProvider

POD = PodUid("0f1e")


def told(
    uid: PodUid, path: Path | None, *others: Path, total: int = 0, done: int = 0
) -> PodResctrlAddOrUpdate:
    """Return a pod's state."""
    state = Exists(path, others) if path is not None else Failed("no room")
    return PodResctrlAddOrUpdate(uid, state, total, done)


def scrape(
    resctrl: Resctrl[FsProvider], *pods: PodResctrlAddOrUpdate, names: MetricNames = MetricNames.RESCTRL
) -> dict[str, Metric]:
    """Return the families of one scrape, as prometheus' own parser reads them."""
    view = PodView({pod.pod_uid: pod for pod in pods}, resctrl)
    registry = CollectorRegistry()
    registry.register(PodCollector(lambda: view, names))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(family: Metric) -> dict[tuple[str, ...], float]:
    """Return a family's series by the values of their labels, sorted by label."""
    return {tuple(value for _, value in sorted(it.labels.items())): it.value for it in family.samples}


@pytest.fixture
def kernel() -> FakeFs:
    """A machine with two L3 domains."""
    return FakeFs(domains=(0, 1), limbo=1.0)


@pytest.fixture
def resctrl(kernel: FakeFs) -> Resctrl[FsProvider]:
    """The library over it."""
    fs: FsProvider = kernel
    return Resctrl.with_provider(fs)


class TestPods:
    """The series of the pods' groups."""

    def test_every_counter_of_every_domain(self, kernel: FakeFs, resctrl: Resctrl[FsProvider]) -> None:
        """Names, types and labels are those that dashboards for resctrl know, one series a domain."""
        group = resctrl.create_group(POD)
        kernel.set_reading(group, "llc_occupancy", 4096, domain=1)
        kernel.set_reading(group, "mbm_total_bytes", 10**12 + 1, domain=0)
        found = scrape(resctrl, told(POD, group))
        occupancy, total = found["l3_llc_occupancy_bytes"], found["l3_mbm_total_bytes"]
        assert (occupancy.type, total.type) == ("gauge", "counter")
        assert {it.name for it in total.samples} == {"l3_mbm_total_bytes_total"}
        assert occupancy.samples[0].labels.keys() == {
            "domain_id", "domain_name", "k8s_pod_uid", "resctrl_control_group", "resctrl_group_source",
        }  # fmt: skip
        assert samples(occupancy)["01", "mon_L3_01", POD, "", "pod"] == 4096
        assert samples(total)["00", "mon_L3_00", POD, "", "pod"] == 10**12 + 1
        assert "l3_mbm_local_bytes" in found

    def test_further_groups_bear_their_control_group(self, resctrl: Resctrl[FsProvider]) -> None:
        """A pod with containers in an RDT class has a series for each of its groups."""
        resctrl.fs.create_dir(resctrl.config.root / "gold")
        main, other = resctrl.create_group(POD), resctrl.create_group(POD, "gold")
        found = samples(scrape(resctrl, told(POD, main, other))["l3_mbm_total_bytes"])
        assert {key[3] for key in found} == {"", "gold"}
        assert len(found) == 4

    def test_dashboards_made_for_cadvisor_find_its_names(
        self, kernel: FakeFs, resctrl: Resctrl[FsProvider]
    ) -> None:
        """The same numbers as gauges with `node_id`; a series stays one for each pod and control group."""
        resctrl.fs.create_dir(resctrl.config.root / "gold")
        groups = [resctrl.create_group(POD), resctrl.create_group(POD, "gold")]
        for number, group in enumerate(groups):
            kernel.set_reading(group, "llc_occupancy", 300 + number, domain=1)
            kernel.set_reading(group, "mbm_total_bytes", 100 + number, domain=1)
            kernel.set_reading(group, "mbm_local_bytes", 200 + number, domain=1)
        ours = scrape(resctrl, told(POD, *groups))
        found = scrape(resctrl, told(POD, *groups), names=MetricNames.CADVISOR)
        pairs = {
            "l3_llc_occupancy_bytes": "container_llc_occupancy_bytes",
            "l3_mbm_total_bytes": "container_memory_bandwidth_bytes",
            "l3_mbm_local_bytes": "container_memory_bandwidth_local_bytes",
        }
        assert found.keys() - ours.keys() == set(pairs.values())
        assert ours.keys() - found.keys() == set(pairs)
        for our, other in pairs.items():
            assert [it.value for it in found[other].samples] == [it.value for it in ours[our].samples]
        total = found["container_memory_bandwidth_bytes"]
        assert total.type == "gauge"
        assert {it.name for it in total.samples} == {"container_memory_bandwidth_bytes"}
        assert total.samples[0].labels.keys() == {"node_id", "k8s_pod_uid", "resctrl_control_group"}
        assert samples(total) == {
            (POD, "0", ""): 0, (POD, "1", ""): 100, (POD, "0", "gold"): 0, (POD, "1", "gold"): 101
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("word", "reason"),
        [("Unavailable", "unavailable"), ("Error", "error"), ("Unassigned", "unassigned"), ("Odd", "error")],
    )
    def test_a_word_is_no_series(
        self, kernel: FakeFs, resctrl: Resctrl[FsProvider], word: str, reason: str
    ) -> None:
        """What has no number is never told as 0: it is counted as missing, the other domain stays."""
        group = resctrl.create_group(POD)
        kernel.set_reading(group, "mbm_total_bytes", word, domain=1)
        found = scrape(resctrl, told(POD, group))
        assert [key[1] for key in samples(found["l3_mbm_total_bytes"])] == ["mon_L3_00"]
        missing = samples(found["nri_resctrl_readings_missing"])
        assert missing == {(it,): 1.0 if it == reason else 0.0 for (it,) in missing}

    @pytest.mark.parametrize("word", ["Unavailable", "Error"])
    def test_a_sub_domain_is_no_series_and_its_word_is_missing(self, word: str) -> None:
        """With sub-NUMA clustering a cache is one series; a part that its sum leaves out is counted."""
        kernel = FakeFs(domains=(0, 1), nodes_per_domain=2)
        fs: FsProvider = kernel
        resctrl = Resctrl.with_provider(fs)
        group = resctrl.create_group(POD)
        kernel.set_reading(group, "mbm_total_bytes", 4096, domain=0)
        kernel.set_reading(group, "mbm_total_bytes", word, domain=1)
        families = scrape(resctrl, told(POD, group))
        told_of = {key[1]: value for key, value in samples(families["l3_mbm_total_bytes"]).items()}
        assert told_of == {"mon_L3_00": 4096, "mon_L3_01": 0}
        reason = {"Unavailable": "unavailable", "Error": "error"}[word]
        assert samples(families["nri_resctrl_readings_missing"])[(reason,)] == 1

    def test_a_name_that_is_no_text_costs_no_scrape(
        self, kernel: FakeFs, resctrl: Resctrl[FsProvider]
    ) -> None:
        """A control group may have any bytes as its name: they are told with backslashes."""
        kernel.create_dir(resctrl.config.root / "gold\udcff")
        group = resctrl.create_group(POD, "gold\udcff")
        found = scrape(resctrl, told(POD, group))["l3_mbm_total_bytes"]
        assert {it.labels["resctrl_control_group"] for it in found.samples} == {"gold\\udcff"}

    def test_a_removed_pods_series_disappear(self, resctrl: Resctrl[FsProvider]) -> None:
        """Nothing is remembered from scrape to scrape."""
        group = resctrl.create_group(POD)
        view = {POD: told(POD, group)}
        registry = CollectorRegistry()
        registry.register(PodCollector(lambda: PodView(view, resctrl)))
        labels = {
            "domain_id": "00", "domain_name": "mon_L3_00", "k8s_pod_uid": POD,
            "resctrl_control_group": "", "resctrl_group_source": "pod",
        }  # fmt: skip
        assert registry.get_sample_value("l3_mbm_total_bytes_total", labels) == 0
        view.clear()
        assert registry.get_sample_value("l3_mbm_total_bytes_total", labels) is None

    def test_a_lost_group_costs_its_own_series_alone(self, resctrl: Resctrl[FsProvider]) -> None:
        """A group that somebody removed is counted as missing; the other pod is read."""
        here, gone = resctrl.create_group(POD), resctrl.group_path("gone")
        found = scrape(resctrl, told(POD, here), told(PodUid("gone"), gone))
        assert {key[2] for key in samples(found["l3_mbm_total_bytes"])} == {POD}
        assert samples(found["nri_resctrl_readings_missing"])[("group",)] == 1

    def test_pods_containers_and_rmids_are_counted(self, resctrl: Resctrl[FsProvider]) -> None:
        """By the state of the group, by completeness, and by whose RMIDs they are."""
        group = resctrl.create_group(POD)
        resctrl.fs.create_dir(resctrl.config.root / "mon_groups" / "somebody")
        found = scrape(
            resctrl,
            told(POD, group, total=3, done=2),
            told(PodUid("b"), None, total=1),
        )
        assert samples(found["nri_resctrl_pods"]) == {("exists",): 1, ("failed",): 1}
        assert samples(found["nri_resctrl_containers"]) == {("reconciled",): 2, ("partial",): 2}
        capacity = resctrl.capacity()
        assert (capacity.in_use, capacity.ours) == (3, 1)
        for name, value in (("rmids", capacity.num_rmids), ("rmids_in_use", 3), ("rmids_ours", 1)):
            assert samples(found[f"nri_resctrl_{name}"]) == {(): value}
        assert samples(found["nri_resctrl_rmids_free"]) == {(): capacity.num_rmids - 3}

    def test_an_unmounted_machine_is_scraped_all_the_same(self) -> None:
        """Without resctrl there are pods and no RMIDs."""
        fs: FsProvider = FakeFs(mounted=False)
        found = scrape(Resctrl.with_provider(fs), told(POD, None))
        assert "nri_resctrl_rmids" not in found
        assert samples(found["nri_resctrl_pods"])[("failed",)] == 1

    @pytest.mark.parametrize(
        ("domain", "event", "name", "kind"),
        [
            ("mon_PERF_PKG_00", "core_energy", "perf_core_energy_joules", EventKind.COUNTER),
            ("mon_PERF_PKG_00", "activity", "perf_activity_farads", EventKind.COUNTER),
            ("mon_L3_00", "new-event", "l3_new_event", EventKind.UNKNOWN),
            ("mon_L2_00", "llc_occupancy", "l2_llc_occupancy_bytes", EventKind.GAUGE),
        ],
    )
    def test_other_events_have_names_too(self, domain: str, event: str, name: str, kind: EventKind) -> None:
        """Energy has its unit; what is not known keeps its name, made fit, and no type is claimed."""
        for names in MetricNames:
            found = metric_name(domain_named(domain), event, names)
            assert (found.name, found.kind, found.labels) == (name, kind, LABELS)


class TestInstruments:
    """What the plugin counts of itself."""

    def test_events_and_refusals(self, kernel: FakeFs) -> None:
        """Each event by kind, each refused group by reason; limbo is a reason of its own."""
        registry = CollectorRegistry()
        instruments = Instruments(registry)
        instruments.told(told(POD, None))
        instruments.told(PodResctrlRemoved(POD))
        instruments.told(PodResctrlRemoved(POD))
        faulty = FaultyFs(kernel)
        faulty.fail("create_dir", errno.EBUSY, times=1)
        fs: FsProvider = faulty
        resctrl = counted(Resctrl.with_provider(fs), instruments)
        with pytest.raises(RmidsBusyError):
            resctrl.create_group("a")
        resctrl.create_group("a")
        value = registry.get_sample_value
        assert value("nri_resctrl_events_dropped_total") == 0
        instruments.lost()
        assert value("nri_resctrl_events_dropped_total") == 1
        assert value("nri_resctrl_events_total", {"type": "add_or_update"}) == 1
        assert value("nri_resctrl_events_total", {"type": "removed"}) == 2
        assert value("nri_resctrl_group_create_errors_total", {"reason": "limbo"}) == 1
        assert value("nri_resctrl_group_create_errors_total", {"reason": "capacity"}) == 0

    def test_requests_are_timed(self) -> None:
        """Every event of the runtime is passed on, and its time measured, also when it fails."""

        class Handler:
            def __getattr__(self, name: str) -> object:
                async def call(*arguments: object) -> None:
                    calls.append((name, len(arguments)))
                    if name == "stop_container":
                        raise RuntimeError("no")

                return call

        calls: list[tuple[str, int]] = []
        registry = CollectorRegistry()
        handler: NriHandler = Handler()  # type: ignore[assignment]
        timed = TimedHandler(handler, Instruments(registry))
        pod, nothing = PodSandbox(id="s"), None

        async def play() -> None:
            await timed.configure(nothing)  # type: ignore[arg-type]
            await timed.synchronize((), ())
            await timed.run_pod_sandbox(pod)
            await timed.stop_pod_sandbox(pod)
            await timed.remove_pod_sandbox(pod)
            await timed.start_container(pod, nothing)  # type: ignore[arg-type]
            with pytest.raises(RuntimeError):
                await timed.stop_container(pod, nothing)  # type: ignore[arg-type]
            await timed.remove_container(pod, nothing)  # type: ignore[arg-type]
            await timed.update_container(pod, nothing)  # type: ignore[arg-type]

        asyncio.run(play())
        assert len(calls) == 9
        for name, _ in calls:
            event = "".join(part.title() for part in name.split("_"))
            assert registry.get_sample_value("nri_resctrl_request_seconds_count", {"event": event}) == 1

    def test_what_runs_here(self) -> None:
        """The version is told, and so is the process' memory."""
        registry = CollectorRegistry()
        Instruments(registry)
        [info] = [it for it in registry.collect() if it.name == "nri_resctrl_build"]
        assert info.samples[0].labels.keys() == {"version", "python", "kernel"}
        assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 0


class Machine:
    """What a probe is told."""

    def __init__(self) -> None:
        self.plugin: list[str] = []
        self.machine: list[str] = []

    def of_plugin(self) -> list[str]:
        assert threading.current_thread() is threading.main_thread()
        return list(self.plugin)

    def of_machine(self) -> list[str]:
        assert threading.current_thread() is not threading.main_thread()
        return self.machine


@asynccontextmanager
async def serving(
    machine: Machine | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[HealthServer]:
    """Serve on a free port, all within ten seconds."""
    address = HealthAddress("127.0.0.1", 0)
    async with (
        asyncio.timeout(10),
        HealthServer(address, registry or CollectorRegistry(), machine or Machine()) as server,
    ):
        yield server


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Ask; return status and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=8) as answer:  # noqa: S310 - our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class TestServer:
    """The address of health and metrics."""

    def test_ready_means_that_nothing_is_in_the_way(self) -> None:
        """What is in the way, of plugin or machine, is told and makes 503; it is alive all the same."""

        async def body() -> None:
            machine = Machine()
            async with serving(machine) as server:
                for path in ("/readyz", "/ready", "/livez", "/live"):
                    assert await asyncio.to_thread(get, server.port, path) == (200, "ok\n")
                machine.plugin.append("no runtime yet")
                machine.machine.append("not mounted")
                status, text = await asyncio.to_thread(get, server.port, "/readyz")
                assert (status, text) == (503, "no runtime yet\nnot mounted\n")
                assert await asyncio.to_thread(get, server.port, "/livez") == (200, "ok\n")

        asyncio.run(body())

    def test_a_loop_that_hangs_is_not_alive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever blocks the event loop is found by the probe, in its time."""
        monkeypatch.setattr("nri_resctrl_plugin.metrics.server.LOOP_LIMIT", 0.1)
        answers: list[tuple[int, str]] = []

        async def body() -> None:
            async with serving() as server:
                asked = threading.Thread(target=lambda: answers.append(get(server.port, "/livez")))
                asked.start()
                asked.join(8)  # on the event loop: it answers nobody meanwhile

        asyncio.run(body())
        assert answers == [(503, "the event loop is silent for 0.1 s\n")]

    def test_metrics_are_read_by_prometheus_own_parser(self, resctrl: Resctrl[FsProvider]) -> None:
        """/metrics carries the registry, in the format of its content type; a query is no other path."""
        group = resctrl.create_group(POD)
        registry = CollectorRegistry()
        registry.register(PodCollector(lambda: PodView({POD: told(POD, group)}, resctrl)))

        async def body() -> None:
            async with serving(registry=registry) as server:
                status, text = await asyncio.to_thread(get, server.port, "/metrics?x=1")
                assert status == 200
                names = {family.name for family in text_string_to_metric_families(text)}
                assert {"l3_mbm_total_bytes", "nri_resctrl_pods"} <= names

        asyncio.run(body())

    def test_a_scrape_that_fails_is_told(self) -> None:
        """The scraper gets 500 and the reason, and the next request is served."""

        def view() -> PodView:
            raise TimeoutError("silent")

        registry = CollectorRegistry()
        registry.register(PodCollector(view))

        async def body() -> None:
            async with serving(registry=registry) as server:
                assert await asyncio.to_thread(get, server.port, "/metrics") == (
                    500,
                    "TimeoutError: silent\n",
                )
                assert await asyncio.to_thread(get, server.port, "/livez") == (200, "ok\n")

        asyncio.run(body())

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 501), ("DELETE", "/livez", 501)],
    )
    def test_all_else_is_refused(self, method: str, path: str, status: int) -> None:
        """There are three paths, to be read."""

        async def body() -> None:
            async with serving() as server:
                assert (await asyncio.to_thread(get, server.port, path, method))[0] == status

        asyncio.run(body())

    def test_idle_connections_do_not_take_every_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One connection too many is closed; those that say nothing are closed in their time."""
        monkeypatch.setattr("nri_resctrl_plugin.metrics.server._Request.timeout", 0.3)

        async def body() -> None:
            async with serving() as server:
                idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS)]
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                assert await reader.read() == b""
                for quiet, _ in idle:
                    assert await quiet.read() == b""
                assert await asyncio.to_thread(get, server.port, "/livez") == (200, "ok\n")
                for each in (writer, *(it for _, it in idle)):
                    each.close()

        asyncio.run(body())

    def test_a_client_that_trickles_is_cut_off_in_the_same_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A letter now and then does not keep a place longer than silence does."""
        monkeypatch.setattr("nri_resctrl_plugin.metrics.server._Request.timeout", 0.3)

        async def body() -> None:
            async with serving() as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                began = time.monotonic()
                ended = asyncio.create_task(reader.read())
                while not ended.done() and time.monotonic() - began < 2:
                    writer.write(b"x")
                    await asyncio.wait([ended], timeout=0.1)
                writer.close()
                assert ended.done()
                assert ended.exception() is not None or ended.result() == b""

        asyncio.run(body())

    def test_a_scrape_that_hangs_holds_up_scrapes_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next scrape is told so in its time, health is told at once, and after the end all is well."""
        monkeypatch.setattr("nri_resctrl_plugin.metrics.server.SCRAPE_LIMIT", 0.1)
        begun, go_on = threading.Event(), threading.Event()

        class Hanging(Collector):
            def collect(self) -> Iterator[Metric]:
                begun.set()
                go_on.wait(8)
                return iter(())

            def describe(self) -> list[Metric]:
                return []

        registry = CollectorRegistry()
        registry.register(Hanging())

        async def body() -> None:
            async with serving(registry=registry) as server:
                first = asyncio.create_task(asyncio.to_thread(get, server.port, "/metrics"))
                assert await asyncio.to_thread(begun.wait, 5)
                late = (503, "another scrape takes too long\n")
                assert await asyncio.to_thread(get, server.port, "/metrics") == late
                for path in ("/livez", "/readyz"):
                    assert await asyncio.to_thread(get, server.port, path) == (200, "ok\n")
                go_on.set()
                assert (await first)[0] == 200
                assert (await asyncio.to_thread(get, server.port, "/metrics"))[0] == 200

        asyncio.run(body())

    def test_a_machine_that_hangs_is_unready_and_not_dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However often readiness is asked for meanwhile, one look is under way, and /livez has its place."""
        monkeypatch.setattr("nri_resctrl_plugin.metrics.server.LOOK_LIMIT", 0.1)
        begun, go_on = threading.Event(), threading.Event()

        class Hanging(Machine):
            def of_machine(self) -> list[str]:
                begun.set()
                go_on.wait(8)
                return []

        async def body() -> None:
            async with serving(Hanging()) as server:
                first = asyncio.create_task(asyncio.to_thread(get, server.port, "/readyz"))
                assert await asyncio.to_thread(begun.wait, 5)
                late = (503, "another look at the machine takes too long\n")
                for _ in range(CONNECTIONS):
                    assert await asyncio.to_thread(get, server.port, "/readyz") == late
                assert await asyncio.to_thread(get, server.port, "/livez") == (200, "ok\n")
                go_on.set()
                assert await first == (200, "ok\n")

        asyncio.run(body())

    def test_threads_that_cannot_be_had_cost_no_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the machine gives no thread for a connection, it is closed, and its place is free again."""

        async def body() -> None:
            async with serving() as server:
                with monkeypatch.context() as exhausted:
                    exhausted.setattr(socketserver.ThreadingMixIn, "process_request", _no_thread)
                    for _ in range(CONNECTIONS):
                        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                        assert await reader.read() == b""
                        writer.close()
                assert await asyncio.to_thread(get, server.port, "/livez") == (200, "ok\n")

        asyncio.run(body())

    def test_an_address_that_is_taken(self) -> None:
        """The error says where."""

        async def body() -> None:
            async with serving() as server:
                taken = HealthServer(HealthAddress("127.0.0.1", server.port), CollectorRegistry(), Machine())
                with pytest.raises(
                    HealthServerError, match=f"cannot listen on 127.0.0.1:{server.port}: Addr"
                ):
                    await taken.__aenter__()

        asyncio.run(body())

    def test_it_ends(self) -> None:
        """Closed, it takes no connection; closing again does nothing."""

        async def body() -> None:
            async with serving() as server:
                port = server.port
                await server.close()
                await server.close()
                assert server.port == 0
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)

        asyncio.run(body())

    def test_all_addresses(self) -> None:
        """Without a host, both kinds of addresses are served."""

        async def body() -> None:
            async with HealthServer(HealthAddress("", 0), CollectorRegistry(), Machine()) as server:
                assert await asyncio.to_thread(get, server.port, "/livez") == (HTTPStatus.OK, "ok\n")

        asyncio.run(body())

    def test_all_addresses_of_a_kernel_without_ipv6(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Booted with ipv6.disable=1 a machine has no such sockets: those that it has are served."""

        class Socket(socket.socket):
            def __init__(
                self, family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None
            ) -> None:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
                super().__init__(family, kind, proto, fileno)

        monkeypatch.setattr("socket.socket", Socket)

        async def body() -> None:
            async with HealthServer(HealthAddress("", 0), CollectorRegistry(), Machine()) as server:
                assert await asyncio.to_thread(get, server.port, "/livez") == (HTTPStatus.OK, "ok\n")

        asyncio.run(body())


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


class TestAddress:
    """What `--health-addr` takes."""

    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            (":8080", "", 8080),
            ("127.0.0.1:0", "127.0.0.1", 0),
            ("[::1]:65535", "::1", 65535),
            ("node:1", "node", 1),
        ],
    )
    def test_forms(self, text: str, host: str, port: int) -> None:
        """Host and port, the host in brackets where it has colons."""
        assert HealthAddress.parse(text) == HealthAddress(host, port)

    @pytest.mark.parametrize(
        "text", ["", "8080", "host", "host:", "::1:80", "h:65536", "h:-1", "h:٣", "h:1x"]
    )
    def test_what_is_none(self, text: str) -> None:
        """All else is refused, and named."""
        with pytest.raises(ValueError, match=r"is not HOST:PORT|stands in brackets"):
            HealthAddress.parse(text)


def test_errors_of_the_library_only_are_counted(kernel: FakeFs) -> None:
    """Every refusal has a reason; what the library does not say is another."""
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    for kind in _subclasses(ResctrlError):
        instruments.refused(kind.__new__(kind))
    reasons = {
        sample.labels["reason"]: sample.value
        for family in registry.collect()
        if family.name == "nri_resctrl_group_create_errors"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert all(value > 0 for value in reasons.values())
    assert reasons.keys() == {"limbo", "capacity", "permission", "not_mounted", "unsupported", "other"}


def _subclasses(kind: type[ResctrlError]) -> Iterator[type[ResctrlError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)
