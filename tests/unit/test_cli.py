"""The program `nri-resctrl-plugin`: flags, settings, what it writes, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import nri_resctrl_plugin
from nri_resctrl_plugin import (
    AuditReport,
    ConfigError,
    Exists,
    PodResctrlAddOrUpdate,
    PodResctrlRemoved,
    PodUid,
    ResctrlPlugin,
    ResctrlPluginConfig,
    RetryFailure,
    RetryReport,
    RetrySubject,
)
from nri_resctrl_plugin.cli import main, run
from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.cli.settings import settings
from nri_resctrl_plugin.cli.sink import LineSink
from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.jsonl import event_from_line
from nri_resctrl_plugin.nri.messages import PodSandbox
from resctrl.testing import FakeFs
from tests.nri_support import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nri_resctrl_plugin.nri import api
    from resctrl import FsProvider

PROGRAM = [sys.executable, "-m", "nri_resctrl_plugin"]
NO_RESCTRL = "resctrl" not in Path("/proc/filesystems").read_text()


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """The program sets up the log of the whole process: put it back."""
    yield
    structlog.reset_defaults()


def text_of(error: pytest.CaptureFixture[str]) -> str:
    """Return what was written to standard error."""
    return error.readouterr().err


class TestArguments:
    """What the command line takes."""

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--version` and `-version` print one line and succeed."""
        for flag in ("--version", "-version"):
            with pytest.raises(SystemExit) as ended:
                main([flag])
            assert ended.value.code == 0
            name, _, version = capsys.readouterr().out.strip().partition(" ")
            assert name == "nri-resctrl-plugin"
            assert version[0].isdigit()

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ([], "required: COMMAND"),
            (["walk"], "invalid choice: 'walk'"),
            (["run", "--colour"], "unrecognized arguments: --colour"),
            (["run", "--retry-interval", "-1"], "no number of seconds"),
            (["run", "--retry-interval", "soon"], "no number of seconds"),
            (["run", "--retry-interval", "inf"], "no number of seconds"),
            (["run", "--resctrl", "imaginary"], "invalid choice: 'imaginary'"),
            (["run", "--log-format", "xml"], "invalid choice: 'xml'"),
            (["run", "--cleanup"], "unrecognized arguments: --cleanup"),
        ],
    )
    def test_bad_usage(
        self, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Wrong flags end with status 2 and a sentence; flags are not abbreviated."""
        with pytest.raises(SystemExit) as ended:
            main(arguments, {})
        assert ended.value.code == Exit.USAGE
        assert complaint in text_of(capsys)

    @pytest.mark.parametrize("idx", ["5", "100", "x1"])
    @pytest.mark.parametrize("dashes", ["-", "--"])
    def test_a_bad_index(
        self, idx: str, dashes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An index that every runtime refuses is refused here, with one dash or two."""
        arguments = ["run", "--resctrl=fake", f"{dashes}idx={idx}", f"{dashes}events", str(tmp_path / "e")]
        assert main(arguments, {}) == Exit.USAGE
        assert "exactly two digits" in text_of(capsys)

    def test_usage_comes_before_the_machine(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A wrong index is a wrong index, also on a machine without resctrl."""
        monkeypatch.setattr("nri_resctrl_plugin.cli.run._provider", lambda *_: FakeFs(supported=False))
        assert main(["run", "-idx", "1"], {}) == Exit.USAGE
        assert "exactly two digits" in text_of(capsys)

    def test_a_bad_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A name that every runtime refuses is refused here."""
        assert main(["run", "--resctrl=fake", "-name", "a b"], {}) == Exit.USAGE
        assert "only letters, digits" in text_of(capsys)

    def test_a_bad_descriptor(self, capsys: pytest.CaptureFixture[str]) -> None:
        """NRI_PLUGIN_SOCKET must be a number, and what it names a socket."""
        assert main(["run", "--resctrl=fake"], {"NRI_PLUGIN_SOCKET": "three"}) == Exit.USAGE
        assert "not the number of a file descriptor" in text_of(capsys)
        assert main(["run", "--resctrl=fake"], {"NRI_PLUGIN_SOCKET": "987"}) == Exit.LOST
        assert "descriptor 987" in text_of(capsys)

    def test_launched_without_arguments(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A runtime gives no arguments: with NRI_PLUGIN_SOCKET in the environment that means `run`."""
        assert main([], {"NRI_PLUGIN_SOCKET": "987"}) == Exit.LOST
        assert "COMMAND" not in text_of(capsys)

    def test_a_bad_number_of_rmids(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The fake needs at least its default group's RMID."""
        assert main(["run", "--resctrl=fake", "--fake-rmids", "0"], {}) == Exit.USAGE
        assert "--fake-rmids 0" in text_of(capsys)


class TestRefusals:
    """What cannot work ends at once, with a status that says what kind of thing it is."""

    def test_an_unknown_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The file, the line, the key, and the one that was meant."""
        config = tmp_path / "config.yaml"
        config.write_text("auto_mount: false\ngroup_prefx: pod_\n")
        assert main(["run", "-config", str(config)], {}) == Exit.CONFIG
        error = text_of(capsys)
        assert f"{config}:2: unknown key 'group_prefx'; did you mean 'group_prefix'?" in error

    def test_a_missing_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A configuration that was asked for and is not there."""
        assert main(["run", "--config", str(tmp_path / "none.yaml")], {}) == Exit.CONFIG
        assert "cannot be read" in text_of(capsys)

    def test_an_empty_prefix(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A sweep without a prefix would remove everybody's groups, at the start or at the end."""
        assert main(["run", "--group-prefix", ""], {}) == Exit.CONFIG
        assert "everybody's groups" in text_of(capsys)
        arguments = ["run", "--group-prefix=", "--no-cleanup-on-start", "--cleanup-on-exit"]
        assert main(arguments, {}) == Exit.CONFIG
        assert "everybody's groups" in text_of(capsys)

    @pytest.mark.skipif(not NO_RESCTRL, reason="this machine has resctrl")
    def test_a_machine_without_resctrl(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It says what is missing, and what works anywhere."""
        assert main(["run"], {}) == Exit.UNSUPPORTED
        error = text_of(capsys)
        assert "/proc/filesystems" in error
        assert "--resctrl=fake" in error

    def test_nobody_listens_and_nobody_waits(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With --exit-on-disconnect a runtime that is not there is status 75."""
        path = tmp_path / "nri.sock"
        arguments = ["run", "--resctrl=fake", "--exit-on-disconnect", "-socket-path", str(path)]
        assert main(arguments, {}) == Exit.LOST
        assert f"no socket at {path}" in text_of(capsys)

    def test_events_that_cannot_be_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A path that cannot be opened is told before anything else happens."""
        arguments = ["run", "--resctrl=fake", "--events", str(tmp_path / "none" / "events")]
        assert main(arguments, {}) == Exit.IO
        assert "cannot write events" in text_of(capsys)


class Unwritable(FakeFs):
    """A resctrl that the caller may only read."""

    def can_open_for_write(self, path: Path) -> bool:
        """No."""
        return False


class Unreadable(FakeFs):
    """A machine whose /proc cannot be read."""

    def read_text(self, path: Path) -> str:
        """Fail."""
        raise PermissionError(13, "Permission denied", str(path))


class TestPreflight:
    """What the machine lacks is told before the first pod comes."""

    @pytest.mark.parametrize(
        ("machine", "status", "complaint"),
        [
            (FakeFs(supported=False), Exit.UNSUPPORTED, "/proc/filesystems does not list it"),
            (FakeFs(monitoring=False), Exit.UNSUPPORTED, "cannot monitor: there is no .*info/L3_MON"),
            (Unwritable(), Exit.PERMISSION, "tasks cannot be written: run as root"),
            (Unreadable(), Exit.UNSUPPORTED, "cannot detect support.*EACCES"),
            (FakeFs(mounted=False), Exit.LOST, "mount -t resctrl resctrl /sys/fs/resctrl"),
            (FakeFs(), Exit.LOST, "no socket at"),
        ],
    )
    def test_each_lack_has_its_end(
        self,
        machine: FakeFs,
        status: Exit,
        *,
        complaint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Nothing to be done: an end at once. Somebody can mend it: a warning, and on it goes."""
        monkeypatch.setattr("nri_resctrl_plugin.cli.run._provider", lambda *_: machine)
        arguments = ["run", "--exit-on-disconnect", "--socket-path", str(tmp_path / "none")]
        assert main(arguments, {}) == status
        assert re.search(complaint, text_of(capsys))

    def test_a_mount_is_left_to_the_plugin_when_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With --auto-mount an unmounted resctrl is no news: it is mounted at the first Synchronize."""
        monkeypatch.setattr("nri_resctrl_plugin.cli.run._provider", lambda *_: FakeFs(mounted=False))
        arguments = ["run", "--auto-mount", "--exit-on-disconnect", "--socket-path", str(tmp_path / "none")]
        assert main(arguments, {}) == Exit.LOST
        assert "resctrl_not_mounted" not in text_of(capsys)

    def test_a_control_socket_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A path for the control socket that cannot be used is a configuration that cannot."""
        arguments = ["run", "--resctrl=fake", "--control", str(tmp_path / "none" / "control.sock")]
        assert main(arguments, {}) == Exit.CONFIG
        assert "control.sock" in text_of(capsys)

    def test_an_interrupt_before_it_serves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C at any moment is an end, not a traceback."""

        def interrupt(*_: object, **__: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("nri_resctrl_plugin.cli.run.run", interrupt)
        assert main(["run"], {}) == Exit.OK

    def test_go_booleans(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """`-cleanup-on-start=false` is how Go spells it; `=true` is the flag itself."""
        for value, status in (("false", Exit.LOST), ("true", Exit.CONFIG)):
            arguments = [
                "run",
                "-resctrl=fake",
                "-group-prefix=",
                f"-cleanup-on-start={value}",
                "-exit-on-disconnect",
                f"-socket-path={tmp_path / 'none'}",
            ]
            assert main(arguments, {}) == status
        assert "everybody's groups" in text_of(capsys)


@pytest.mark.parametrize(
    "flag", ["-cleanup-on-exit", "-exit-on-disconnect", "-cleanup-on-start", "-auto-mount", "--no-auto-mount"]
)
def test_every_boolean_can_be_written_as_in_go(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`-flag=false` and `-flag=true` are taken for each boolean flag; what is refused is the index alone."""
    written = [flag] if flag.startswith("--") else [f"{flag}=false", f"{flag}=true"]
    for each in written:
        assert main(["run", "--resctrl=fake", each, "-idx=5"], {}) == Exit.USAGE
        assert "exactly two digits" in text_of(capsys)


def test_true_is_a_name_too(capsys: pytest.CaptureFixture[str]) -> None:
    """`-name=true` gives the plugin a name: only boolean flags are rewritten."""
    assert main(["run", "--resctrl=fake", "-name=true", "-idx=5"], {}) == Exit.USAGE
    assert "exactly two digits" in text_of(capsys)


def flags(**given: object) -> Namespace:
    """Return the flags that are settings, as argparse leaves them."""
    names = ("config", "group_prefix", "resctrl_root", "cleanup_on_start", "auto_mount")
    return Namespace(**{name: given.get(name) for name in names})


class TestSettings:
    """File, environment and flags: later wins."""

    def test_the_defaults(self) -> None:
        """Nothing given, nothing changed; a launched plugin begins like this."""
        environment = {"NRI_PLUGIN_NAME": "x", "NRI_PLUGIN_IDX": "10", "NRI_PLUGIN_SOCKET": "3"}
        config = settings(flags(), environment)
        assert (config.group_prefix, config.cleanup_on_start, config.auto_mount) == ("pod_", True, False)

    def test_each_wins_over_the_one_before(self, tmp_path: Path) -> None:
        """The file over the defaults, a variable over the file, a flag over both."""
        config = tmp_path / "c.yaml"
        config.write_text("group_prefix: file_\nmax_reconcile_passes: 3\nauto_mount: true\n")
        file = flags(config=str(config))
        assert settings(file, {}).group_prefix == "file_"
        environment = {
            "NRI_RESCTRL_GROUP_PREFIX": "env_",
            "NRI_RESCTRL_MAX_RECONCILE_PASSES": "7",
            "NRI_RESCTRL_AUTO_MOUNT": "false",
            "NRI_RESCTRL_CGROUP_ROOT": "/host/cgroup",
        }
        found = settings(file, environment)
        assert (found.group_prefix, found.max_reconcile_passes, found.auto_mount) == ("env_", 7, False)
        assert found.cgroup_root == Path("/host/cgroup")
        flag = flags(config=str(config), group_prefix="flag_", auto_mount=True)
        found = settings(flag, environment)
        assert (found.group_prefix, found.max_reconcile_passes, found.auto_mount) == ("flag_", 7, True)

    def test_a_flag_mends_the_file(self, tmp_path: Path) -> None:
        """An empty prefix is refused only with the sweep that is in force in the end, wherever that stood."""
        config = tmp_path / "c.yaml"
        for text in ('group_prefix: ""\n', 'cleanup_on_start: true\ngroup_prefix: ""\n'):
            config.write_text(text)
            found = settings(flags(config=str(config), cleanup_on_start=False), {})
            assert (found.group_prefix, found.cleanup_on_start) == ("", False)
            assert type(found) is ResctrlPluginConfig
            assert settings(flags(config=str(config)), {"NRI_RESCTRL_CLEANUP_ON_START": "false"}) == found
            assert settings(flags(config=str(config), group_prefix="x_"), {}).cleanup_on_start
        given = flags(cleanup_on_start=False)
        assert settings(given, {"NRI_RESCTRL_GROUP_PREFIX": ""}).group_prefix == ""

    @pytest.mark.parametrize(
        ("text", "given", "place"),
        [
            ('auto_mount: true\ngroup_prefix: ""\n', {}, ":2: group_prefix"),
            ('group_prefix: ""\ncleanup_on_start: false\n', {"cleanup_on_start": True}, ": group_prefix"),
            ("auto_mount: true\nmax_reconcile_passes: 0\n", {"cleanup_on_start": False}, ":2: max_reconcile"),
        ],
    )
    def test_a_bad_file_is_named(
        self, text: str, given: dict[str, object], place: str, tmp_path: Path
    ) -> None:
        """The message says the file and, where the file alone is wrong, the line."""
        config = tmp_path / "c.yaml"
        config.write_text(text)
        with pytest.raises(Stop, match=re.escape(f"{config}{place}")):
            settings(flags(config=str(config), **given), {})

    def test_a_flag_can_say_no(self) -> None:
        """False is a value, not an absence."""
        assert settings(flags(cleanup_on_start=False), {}).cleanup_on_start is False

    def test_the_file_by_variable(self, tmp_path: Path) -> None:
        """NRI_RESCTRL_CONFIG names the file, unless a flag does."""
        first, second = tmp_path / "a", tmp_path / "b"
        first.write_text("group_prefix: a_\n")
        second.write_text("group_prefix: b_\n")
        environment = {"NRI_RESCTRL_CONFIG": str(first)}
        assert settings(flags(), environment).group_prefix == "a_"
        assert settings(flags(config=str(second)), environment).group_prefix == "b_"

    @pytest.mark.parametrize(
        ("variable", "value", "complaint"),
        [
            ("AUTO_MOUNT", "yes", "true or false"),
            ("MAX_RECONCILE_PASSES", "many", "whole number"),
            ("MAX_RECONCILE_PASSES", "0", "between 1 and"),
            ("GROUP_PREFIX", "a/b", "letters, digits"),
            ("GROUP_PREFIX", "", "everybody's groups"),
            ("RESCTRL_ROOT", "sys", "absolute path"),
        ],
    )
    def test_a_bad_variable_is_named(self, variable: str, value: str, complaint: str) -> None:
        """The message says which variable, and what is wrong with it."""
        with pytest.raises(Stop, match=f"NRI_RESCTRL_{variable}: .*{complaint}") as stopped:
            settings(flags(), {f"NRI_RESCTRL_{variable}": value})
        assert stopped.value.status is Exit.CONFIG

    def test_other_variables_are_left_alone(self) -> None:
        """Kubernetes makes variables of the names of services."""
        assert settings(flags(), {"NRI_RESCTRL_SERVICE_HOST": "10.0.0.1"}) == settings(flags(), {})


def lines_of(path: Path) -> list[dict[str, object]]:
    """Return the event lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def serve(arguments: list[str], script: Callable[[], Awaitable[None]], environment: dict[str, str]) -> int:
    """Run the program in this thread while a script plays in another; SIGTERM ends it."""
    failures: list[BaseException] = []

    def play() -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await script()

        try:
            asyncio.run(bounded())
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the program may end by itself before that
    player = threading.Thread(target=play)
    player.start()
    try:
        status = main(["run", *arguments], environment)
    finally:
        player.join()
        signal.signal(signal.SIGTERM, before)
    if failures:
        raise failures[0]
    return status


POD = PodSandbox(id="sb0", uid="uid0", name="web", cgroup_parent="/kubepods/poduid0")


class TestServing:
    """The plugin as a program, in front of a runtime's side on a real socket."""

    def test_events_are_lines(self, tmp_path: Path) -> None:
        """A pod's life is told in JSON Lines with schema, seq and ts; SIGTERM is status 0."""
        events, path = tmp_path / "events", tmp_path / "nri.sock"

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                peer = await runtime.synchronized()
                assert (peer.name, peer.idx) == ("cache-watch", "42")
                await runtime.run_pod(POD)
                await until(lambda: events.read_text().count("\n") == 1, "the group was told")
                await runtime.stop_pod("sb0")
                await runtime.remove_pod("sb0")
                await until(lambda: events.read_text().count("\n") == 2, "the end was told")

        arguments = ["-resctrl=fake", "-idx", "42", "-name", "cache-watch", "-socket-path", str(path)]
        assert serve([*arguments, "-events", str(events)], script, {}) == Exit.OK
        told = [event_from_line(line) for line in events.read_text().splitlines()]
        group = Exists(Path("/sys/fs/resctrl/mon_groups/pod_uid0"))
        assert told == [
            PodResctrlAddOrUpdate(PodUid("uid0"), group, 0, 0),
            PodResctrlRemoved(PodUid("uid0")),
        ]
        lines = lines_of(events)
        assert [line["seq"] for line in lines] == [1, 2]
        assert all(line["schema"] == 1 for line in lines)
        assert all(str(line["ts"]).endswith("Z") for line in lines)

    def test_the_events_file_is_not_for_everybody(self, tmp_path: Path) -> None:
        """It tells of pods: made with mode 0640, as the log is, however lax the umask."""
        target = tmp_path / "events"

        async def script() -> None:
            async with RuntimeSide(tmp_path / "nri.sock") as runtime:
                await runtime.synchronized()

        before = os.umask(0)
        try:
            arguments = ["--resctrl=fake", "--socket-path", str(tmp_path / "nri.sock")]
            assert serve([*arguments, "--events", str(target)], script, {}) == Exit.OK
        finally:
            os.umask(before)
        assert target.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize(
        ("names", "series"),
        [
            ([], 'l3_mbm_total_bytes_total{domain_id="00",domain_name="mon_L3_00"'),
            (["--metric-names=cadvisor"], 'container_memory_bandwidth_bytes{k8s_pod_uid="uid0",node_id="0"'),
        ],
        ids=["resctrl", "cadvisor"],
    )
    def test_health_and_metrics_have_an_address(self, tmp_path: Path, names: list[str], series: str) -> None:
        """Ready once the runtime told what exists; the metrics tell of its pods and of the plugin's work."""
        path = tmp_path / "nri.sock"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        def get(page: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError:
                return 0, "it does not listen yet"

        def until(holds: Callable[[], bool]) -> None:
            end = time.monotonic() + 20  # a thread that never ends would keep the whole run
            while not holds():
                assert time.monotonic() < end
                time.sleep(0.01)

        def until_ready_is(status: int) -> None:
            until(lambda: get("/readyz")[0] == status)

        def until_told(sample: str) -> None:
            until(lambda: sample in get("/metrics")[1])

        async def script() -> None:
            await asyncio.to_thread(until_ready_is, 503)
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await asyncio.to_thread(until_ready_is, 200)
                _, text = await asyncio.to_thread(get, "/metrics")
                assert 'nri_resctrl_pods{state="exists"} 1.0' in text
                assert series in text
                assert 'nri_resctrl_request_seconds_count{event="RunPodSandbox"} 1.0' in text
                await asyncio.to_thread(until_told, "nri_resctrl_events_dropped_total 1.0")

        arguments = ["--resctrl=fake", "--socket-path", str(path), "--events", "/dev/full", *names]
        assert serve([*arguments, "--health-addr", f"127.0.0.1:{port}"], script, {}) == Exit.OK

    @pytest.mark.parametrize("address", ["8080", "127.0.0.1:http", "::1:80"])
    def test_an_address_that_is_none_is_refused(
        self, address: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Before anything is done, with the form that is meant."""
        assert main(["run", "--resctrl=fake", "--health-addr", address], {}) == Exit.USAGE
        assert "--health-addr" in text_of(capsys)

    def test_audits_have_a_cadence(self, tmp_path: Path) -> None:
        """A group that somebody removed is found and made again by the program's own audits."""
        events, path = tmp_path / "events", tmp_path / "nri.sock"
        fs = FakeFs()

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await until(lambda: events.read_text().count("\n") == 1, "the group was told")
                fs.remove_dir(fs.root / "mon_groups" / "pod_uid0")
                await until(lambda: events.read_text().count("\n") == 3, "the loss was mended")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nri_resctrl_plugin.cli.run._provider", lambda *_: fs)
            arguments = ["--retry-interval=0", "--audit-interval=0.02", f"--socket-path={path}"]
            assert serve([*arguments, f"--events={events}"], script, {}) == Exit.OK
        told = [event_from_line(line) for line in events.read_text().splitlines()]
        states = [type(it.group_state).__name__ for it in told if isinstance(it, PodResctrlAddOrUpdate)]
        assert states == ["Exists", "Failed", "Exists"]

    def test_audits_are_logged(self) -> None:
        """What an audit found is information, with its counts; that it found nothing is debug."""
        failure = RetryFailure(RetrySubject.CONTAINER, "c", RuntimeError("no"))
        reports = [AuditReport(pods=2), AuditReport(pods=2, threads_astray=3, failures=(failure,))]

        class Plugin:
            async def audit_once(self) -> AuditReport:
                if not reports:
                    raise asyncio.CancelledError
                return reports.pop(0)

        plugin: ResctrlPlugin[FsProvider] = Plugin()  # type: ignore[assignment]
        with structlog.testing.capture_logs() as records, pytest.raises(asyncio.CancelledError):
            asyncio.run(run._audit(plugin, 0.001))
        assert [(it["event"], it["log_level"]) for it in records] == [
            ("audited", "debug"), ("audited", "info"), ("audit_failed", "debug"),
        ]  # fmt: skip
        assert (records[1]["pods"], records[1]["threads_astray"]) == (2, 3)
        assert (records[2]["subject"], records[2]["id"], records[2]["error"]) == ("container", "c", "no")

    def test_retries_have_a_cadence(self, tmp_path: Path) -> None:
        """A pod without an RMID gets its group by the program's own retries, once another pod has gone."""
        events, path = tmp_path / "events", tmp_path / "nri.sock"

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await runtime.run_pod(PodSandbox(id="sb1", uid="uid1"))
                await until(lambda: '"Failed"' in events.read_text(), "the second pod has no group")
                await runtime.stop_pod("sb0")
                made = {"type": "Exists", "path": "/sys/fs/resctrl/mon_groups/pod_uid1", "others": []}
                await until(
                    lambda: any(line.get("group_state") == made for line in lines_of(events)),
                    "a retry made the group",
                    10,
                )

        arguments = ["--resctrl=fake", "--fake-rmids=2", "--retry-interval=0.05", "--socket-path", str(path)]
        assert serve([*arguments, "--events", str(events)], script, {}) == Exit.OK
        states = [(line["type"], line["pod_uid"]) for line in lines_of(events)]
        assert states == [
            ("AddOrUpdate", "uid0"),
            ("AddOrUpdate", "uid1"),
            ("Removed", "uid0"),
            ("AddOrUpdate", "uid1"),
        ]

    def test_groups_are_cleaned_up_when_asked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--cleanup-on-exit removes our groups at the end and says how many; the log is JSON when asked."""
        events, path = tmp_path / "events", tmp_path / "nri.sock"

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await until(events.read_text, "the group was told")

        arguments = ["--resctrl=fake", "--cleanup-on-exit", "--log-format=json", "--socket-path", str(path)]
        assert serve([*arguments, "--events", str(events)], script, {}) == Exit.OK
        records = [json.loads(line) for line in text_of(capsys).splitlines()]
        (record,) = [record for record in records if record["event"] == "exit_cleanup"]
        assert (record["removed"], record["removal_failures"]) == (1, 0)

    @pytest.mark.parametrize("placed", [True, False])
    def test_groups_below_control_groups_are_cleaned_up_with_placement(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed: bool
    ) -> None:
        """--cleanup-on-exit reaches as far as groups are made: with placement below control groups too."""
        machine, path, config = FakeFs(), tmp_path / "nri.sock", tmp_path / "config.yaml"
        config.write_text(f"class_placement: {json.dumps(placed)}\ncleanup_on_start: false\n")
        machine.create_dir(machine.root / "gold")
        monkeypatch.setattr("nri_resctrl_plugin.cli.run._provider", lambda *_: machine)
        below = machine.root / "gold" / "mon_groups"

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await asyncio.to_thread(machine.create_dir, below / "pod_a")

        arguments = ["--resctrl=fake", "--cleanup-on-exit", "--config", str(config)]
        assert serve([*arguments, "--socket-path", str(path)], script, {}) == Exit.OK
        assert machine.read_child_dirs(below) == ([] if placed else ["pod_a"])

    def test_nothing_is_done_that_nobody_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--retry-interval=0 never retries, and without --cleanup-on-exit groups stay in place."""
        events, path = tmp_path / "events", tmp_path / "nri.sock"
        retries: list[object] = []

        async def counted(plugin: object) -> RetryReport:
            retries.append(plugin)
            return RetryReport()

        monkeypatch.setattr(ResctrlPlugin, "retry_all_once", counted)

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await until(events.read_text, "the group was told")

        arguments = ["--resctrl=fake", "--retry-interval=0", "--log-format=json", "--socket-path", str(path)]
        assert serve([*arguments, "--events", str(events)], script, {}) == Exit.OK
        assert retries == []
        records = [json.loads(line)["event"] for line in text_of(capsys).splitlines()]
        assert "startup_cleanup" in records
        assert "exit_cleanup" not in records

    def test_standard_output_is_for_events_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without --events the lines go to standard output, and nothing else does."""
        path = tmp_path / "nri.sock"
        out = ""

        def told() -> bool:
            nonlocal out
            out += capsys.readouterr().out
            return out.endswith("}\n")

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await until(told, "the group was told")

        assert serve(["--resctrl=fake", "--socket-path", str(path)], script, {}) == Exit.OK
        assert [json.loads(line)["pod_uid"] for line in out.splitlines()] == ["uid0"]

    def test_a_runtime_that_is_not_there_is_waited_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The missing socket is told once, with what to do; when the runtime comes the plugin is there."""
        path, control = tmp_path / "nri.sock", tmp_path / "control.sock"
        runtime = RuntimeSide(path)

        async def script() -> None:
            await until(control.exists, "the program serves")
            await asyncio.sleep(1.2)  # two attempts or three
            async with runtime:
                await runtime.synchronized(15)

        arguments = ["--resctrl=fake", "--socket-path", str(path), "--control", str(control)]
        assert serve(arguments, script, {}) == Exit.OK
        error = text_of(capsys)
        assert error.count("no socket at") == 1
        assert "NRI enabled" in error
        assert runtime.connections == 1

    def test_the_end_of_the_connection_can_be_the_end(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With --exit-on-disconnect a supervisor decides: status 75 when the runtime goes."""
        path = tmp_path / "nri.sock"

        async def script() -> None:
            await asyncio.sleep(0)
            async with RuntimeSide(path) as runtime:
                started.set()
                await runtime.synchronized()

        started = threading.Event()
        player = threading.Thread(target=lambda: asyncio.run(script()))
        player.start()
        assert started.wait(10)
        assert (
            main(["run", "--resctrl=fake", "--exit-on-disconnect", "--socket-path", str(path)], {})
            == Exit.LOST
        )
        player.join()
        assert "closed the connection" in text_of(capsys)


class TestLaunched:
    """A plugin that the runtime launched has one connection, and its end says how it went."""

    def launched(self, path: Path, script: Callable[[RuntimeSide], Awaitable[None]], config: str = "") -> int:
        """Run the program on a connection that was made for it, while a script plays the runtime."""
        side = socket.socket(socket.AF_UNIX)
        began = threading.Event()

        async def play() -> None:
            async with RuntimeSide(path, config=config) as runtime:
                side.connect(str(path))
                began.set()
                async with asyncio.timeout(20):
                    await script(runtime)

        player = threading.Thread(target=lambda: asyncio.run(play()))
        player.start()
        assert began.wait(10)
        environment = {"NRI_PLUGIN_SOCKET": str(side.detach()), "NRI_PLUGIN_IDX": "07"}
        try:
            return main(["run", "--resctrl=fake"], environment)
        finally:
            player.join()

    def test_the_end_of_a_life_is_no_failure(self, tmp_path: Path) -> None:
        """A runtime that took the plugin and then closes the connection ends it with status 0."""

        async def script(runtime: RuntimeSide) -> None:
            assert (await runtime.synchronized()).idx == "07"

        assert self.launched(tmp_path / "nri.sock", script) == Exit.OK

    def test_a_refused_registration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A runtime that refuses the plugin ends it with status 75 and the runtime's words."""

        async def refuse(*_: object) -> api.Empty:
            await asyncio.sleep(0)
            raise GRPCError(Status.UNKNOWN, "not on this node")

        monkeypatch.setattr("nri_resctrl_plugin.demo.runtime._Registration.register_plugin", refuse)

        async def script(runtime: RuntimeSide) -> None:
            await until(lambda: runtime.connections, "it connected")
            await asyncio.sleep(0.5)

        assert self.launched(tmp_path / "nri.sock", script) == Exit.LOST
        assert "nri-resctrl-plugin: the runtime does not register 07-resctrl: not on this node" in text_of(
            capsys
        )

    def test_a_configuration_that_cannot_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A plugin that refuses the runtime's settings ends with status 78 and says which."""

        async def refuse(*_: object) -> None:
            await asyncio.sleep(0)
            raise ConfigError("the runtime's configuration:1: unknown key 'prefix'")

        monkeypatch.setattr(ResctrlPlugin, "configure", refuse)

        async def script(runtime: RuntimeSide) -> None:
            await until(lambda: runtime.connections, "it connected")
            await asyncio.sleep(0.5)

        assert self.launched(tmp_path / "nri.sock", script) == Exit.CONFIG
        assert "nri-resctrl-plugin: the runtime's configuration:1: unknown key" in text_of(capsys)

    @pytest.mark.parametrize(
        ("flags_given", "variables", "expected"),
        [
            ([], {}, ("resctrl", "10")),
            ([], {"NRI_PLUGIN_NAME": "env", "NRI_PLUGIN_IDX": "20"}, ("env", "20")),
            (["-name=flag"], {"NRI_PLUGIN_NAME": "env", "NRI_PLUGIN_IDX": "20"}, ("flag", "20")),
            (["-idx=30"], {"NRI_PLUGIN_NAME": "env", "NRI_PLUGIN_IDX": "20"}, ("env", "30")),
        ],
    )
    def test_a_flag_wins_over_a_variable(
        self, flags_given: list[str], variables: dict[str, str], expected: tuple[str, str], tmp_path: Path
    ) -> None:
        """Name and index: a flag, else NRI_PLUGIN_NAME and NRI_PLUGIN_IDX, else resctrl and 10."""
        path = tmp_path / "nri.sock"

        async def script() -> None:
            async with RuntimeSide(path) as runtime:
                peer = await runtime.synchronized()
                assert (peer.name, peer.idx) == expected

        assert (
            serve(["--resctrl=fake", *flags_given, "--socket-path", str(path)], script, variables) == Exit.OK
        )


class Program:
    """The program in a process of its own.

    Attributes:
        process: It.
        errors: Where its log goes.
    """

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self.errors = errors

    def wait_for(self, text: str) -> None:
        """Wait until the log says something."""
        deadline = time.monotonic() + 15
        while text not in self.errors.read_text():
            assert time.monotonic() < deadline, self.errors.read_text()
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.02)


@contextmanager
def program(
    tmp_path: Path, *arguments: str, environment: dict[str, str] | None = None, pass_fd: int | None = None
) -> Iterator[Program]:
    """Start the program, and make sure that it ends."""
    errors = tmp_path / "stderr"
    with (
        errors.open("w") as stream,
        subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=(environment or {}) | {"PYTHONPATH": str(Path(__file__).parents[2])},
            pass_fds=[] if pass_fd is None else [pass_fd],
        ) as process,
    ):
        try:
            yield Program(process, errors)
        finally:
            if process.poll() is None:
                process.kill()


class TestProcess:
    """The same as a process."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_end_it_cleanly(self, tmp_path: Path, number: signal.Signals) -> None:
        """SIGTERM and SIGINT: status 0, nothing on standard output, no traceback."""
        with program(tmp_path, "run", "--resctrl=fake", "--socket-path", str(tmp_path / "no")) as running:
            running.wait_for("no socket at")
            running.process.send_signal(number)
            out, _ = running.process.communicate(timeout=15)
            assert running.process.returncode == 0
            assert out == ""
            assert "Traceback" not in running.errors.read_text()

    def test_an_inherited_connection(self, tmp_path: Path) -> None:
        """No PATH, no HOME, a descriptor: it registers as it was named, and ends with the connection.

        Nobody has answered the registration by then: no runtime took it, and the status says so.
        """
        left, right = socket.socketpair()
        environment = {
            "NRI_PLUGIN_NAME": "resctrl",
            "NRI_PLUGIN_IDX": "07",
            "NRI_PLUGIN_SOCKET": str(left.fileno()),
        }
        with (
            left,
            right,
            program(
                tmp_path, "run", "--resctrl=fake", environment=environment, pass_fd=left.fileno()
            ) as running,
        ):
            left.close()
            right.settimeout(15)
            registration = b""
            while b"RegisterPlugin" not in registration or not registration.endswith(b"v0.12.2"):
                registration += right.recv(4096)
                if b"v0.12.2" in registration:
                    break
            assert b"\x0a\x07resctrl\x12\x0207" in registration
            right.close()
            running.process.wait(15)
            assert running.process.returncode == Exit.LOST

    def test_nobody_reads_the_events(self, tmp_path: Path) -> None:
        """A reader that goes away ends the program with status 74 at the next event: nobody would know."""
        path = tmp_path / "nri.sock"

        async def play(running: Program) -> None:
            async with asyncio.timeout(20), RuntimeSide(path) as runtime:
                await runtime.synchronized()
                assert running.process.stdout is not None
                running.process.stdout.close()
                await runtime.run_pod(POD)
                await until(lambda: running.process.poll() is not None, "it ended", 10)

        with program(tmp_path, "run", "--resctrl=fake", "--socket-path", str(path)) as running:
            asyncio.run(play(running))
            assert running.process.returncode == Exit.IO
            assert "nobody reads the events" in running.errors.read_text()


class TestImports:
    """What is loaded, and when."""

    def test_the_command_line_alone_is_light(self) -> None:
        """Flags and the version need none of the packages that serving needs."""
        heavy = ("asyncio", "attrs", "betterproto2", "cattrs", "grpclib", "structlog", "yaml", "resctrl")
        code = f"import sys, nri_resctrl_plugin.cli; print([m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env={"PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
        assert done.stdout == "[]\n"

    @pytest.mark.parametrize("command", ["run", "demo"])
    def test_without_the_extra_it_says_so(self, command: str) -> None:
        """A package that is not installed ends it with status 69 and the mend, not a traceback."""
        done = subprocess.run(
            [sys.executable, "-S", "-m", "nri_resctrl_plugin", command],  # -S: no site-packages
            capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert done.returncode == Exit.UNSUPPORTED
        assert done.stderr.count("\n") == 1
        assert "pip install 'resctrl[nri]'" in done.stderr

    def test_every_public_name_is_there(self) -> None:
        """`__all__`, `dir()` and attributes agree, and another name is refused as ever."""
        for name in nri_resctrl_plugin.__all__:
            assert getattr(nri_resctrl_plugin, name) is vars(nri_resctrl_plugin)[name]
        assert sorted(nri_resctrl_plugin._HOME) == nri_resctrl_plugin.__all__
        assert set(nri_resctrl_plugin.__all__) <= set(dir(nri_resctrl_plugin))
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            getattr(nri_resctrl_plugin, "Nothing")  # noqa: B009 - a checker refuses the plain form


def unread_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


class TestLostAnswers:
    """Help and the version, where they cannot be written."""

    @pytest.mark.parametrize("flag", ["--help", "--version"])
    @pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
    @pytest.mark.parametrize(
        ("target", "status", "told"),
        [
            ("full", Exit.IO, "nri-resctrl-plugin: cannot write: No space left on device\n"),
            ("unread", Exit.OK, ""),
        ],
    )
    def test_a_sentence_and_a_status(
        self, target: str, status: Exit, told: str, unbuffered: str, flag: str
    ) -> None:
        """A full disk is told in a sentence, a reader who is gone is no error; neither is a traceback."""
        output = unread_pipe() if target == "unread" else os.open("/dev/full", os.O_WRONLY)
        done = subprocess.run(
            [*PROGRAM, flag],
            stdout=output,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": unbuffered},
            check=False,
            text=True,
            timeout=30,
        )
        os.close(output)
        # Since Python 3.12 help that cannot be written is no error to argparse, if it is not buffered.
        silent = (Exit.OK, "") if flag == "--help" and unbuffered else (status, told)
        assert (done.returncode, done.stderr) in {(status, told), silent}


class TestLostLogs:
    """A log that cannot be written costs nothing but itself."""

    @pytest.mark.parametrize("log", ["unread", "full", "closed"])
    def test_pods_are_served_all_the_same(self, log: str, tmp_path: Path) -> None:
        """With standard error unread, on a full disk or closed: answers, events and status are as ever."""
        path, events = tmp_path / "nri.sock", tmp_path / "events"
        events.touch()
        target = unread_pipe() if log == "unread" else os.open("/dev/full", os.O_WRONLY)
        arguments = ["run", "--resctrl=fake", "--log-level=debug", "--socket-path", str(path)]
        shell = 'exec "$@" 2>&-' if log == "closed" else 'exec "$@"'

        async def play(process: subprocess.Popen[bytes]) -> None:
            async with asyncio.timeout(20), RuntimeSide(path) as runtime:
                await runtime.synchronized()
                await runtime.run_pod(POD)
                await until(events.read_text, "the group was told")
                assert runtime.dropped == []
                process.terminate()
                await asyncio.to_thread(process.wait, 15)

        with subprocess.Popen(
            ["/bin/sh", "-c", shell, "sh", *PROGRAM, *arguments, "--events", str(events)],
            stderr=target,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            os.close(target)
            try:
                asyncio.run(play(process))
            finally:
                process.kill()
        assert process.returncode == Exit.OK
        assert [line["pod_uid"] for line in lines_of(events)] == ["uid0"]

    @pytest.mark.parametrize("log", ["unread", "full"])
    def test_a_refusal_keeps_its_status(self, log: str) -> None:
        """A complaint that nobody can read does not change how the program ends."""
        target = unread_pipe() if log == "unread" else os.open("/dev/full", os.O_WRONLY)
        done = subprocess.run(
            [*PROGRAM, "run", "--resctrl=fake", "-idx=5"],
            stderr=target,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
            timeout=30,
        )
        os.close(target)
        assert done.returncode == Exit.USAGE


class TestLineSink:
    """Lines go out in order, and never hold up the plugin."""

    def test_lines_in_order(self, tmp_path: Path) -> None:
        """What is put is written and flushed by the time that close returns."""
        path = tmp_path / "lines"
        with path.open("w") as stream:
            sink = LineSink(stream, lambda: None, lambda: pytest.fail("a line is lost"))
            for number in range(500):
                sink.put(f"{number}\n")
            assert sink.close()
            assert path.read_text().split() == [str(number) for number in range(500)]

    def test_a_stream_that_fails_costs_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A failure that is not the reader's end is logged, and the next line is tried."""

        class Failing:
            written: list[str]

            def __init__(self) -> None:
                self.written = []

            def write(self, line: str) -> None:
                if "bad" in line:
                    raise OSError(28, "No space left on device")
                self.written.append(line)

            def flush(self) -> None:
                """Nothing to flush."""

        stream, lost = Failing(), []
        sink = LineSink(stream, lambda: None, lambda: lost.append(1))  # type: ignore[arg-type]
        for line in ("a\n", "bad\n", "b\n"):
            sink.put(line)
        assert sink.close()
        assert stream.written == ["a\n", "b\n"]
        assert len(lost) == 1
        assert "event_not_written" in capsys.readouterr().out

    def test_a_reader_that_is_gone_ends_it(self) -> None:
        """EPIPE is told once, and close does not wait for what nobody will read."""

        class Gone:
            def write(self, line: str) -> None:
                raise BrokenPipeError(32, "Broken pipe")

            def flush(self) -> None:
                """Nothing to flush."""

        told = threading.Event()
        sink = LineSink(Gone(), told.set)  # type: ignore[arg-type]
        sink.put("a\n")
        assert told.wait(5)
        sink.put("b\n")
        assert sink.close()

    def test_a_slow_reader_loses_lines_not_time(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With a full queue lines are dropped, said once; close gives up in time."""
        monkeypatch.setattr("nri_resctrl_plugin.cli.sink.QUEUE_LIMIT", 3)
        gate = threading.Event()

        class Slow:
            written = 0

            def write(self, line: str) -> None:
                gate.wait(20)
                self.written += 1

            def flush(self) -> None:
                """Nothing to flush."""

        stream, lost = Slow(), []
        sink = LineSink(stream, lambda: None, lambda: lost.append(1))  # type: ignore[arg-type]
        for number in range(20):
            sink.put(f"{number}\n")
        assert not sink.close(0.05)
        gate.set()
        assert sink.close()
        assert capsys.readouterr().out.count("events_dropped") == 1
        assert len(lost) + stream.written == 20


def test_the_reference_lists_every_exit_status() -> None:
    """Whoever supervises the program finds what each status means; flags and settings are drawn."""
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
    assert [status for status in Exit if f"| {int(status)} |" not in page] == []


def test_exit_statuses_are_those_of_sysexits() -> None:
    """What the documentation promises to supervisors."""
    assert [(status.name, int(status)) for status in Exit] == [
        ("OK", 0),
        ("UNUSABLE", 1),
        ("USAGE", 2),
        ("UNSUPPORTED", 69),
        ("IO", 74),
        ("LOST", 75),
        ("PERMISSION", 77),
        ("CONFIG", 78),
    ]
