"""A plugin that the runtime launches: its settings, its log, and what it does where it can do nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import frozen

from nri_resctrl_plugin.cli import journal, logs, main
from nri_resctrl_plugin.cli.exits import Exit
from nri_resctrl_plugin.cli.journal import Journal
from nri_resctrl_plugin.demo.runtime import RuntimeSide
from nri_resctrl_plugin.jsonl import event_from_line
from nri_resctrl_plugin.nri.messages import PodSandbox
from tests.nri_support import in_loop, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POD = PodSandbox(id="sandbox", uid="uid")
SOURCES = Path(__file__).parents[2]

HAS_RESCTRL = "resctrl" in Path("/proc/filesystems").read_text()


@frozen
class Launched:
    """The program as a runtime starts it, and that runtime."""

    runtime: RuntimeSide
    process: subprocess.Popen[bytes]

    async def ended(self) -> int:
        """Wait for its end, and return its status."""
        await until(lambda: self.process.poll() is not None, "it ended", 10)
        return self.process.wait()


@asynccontextmanager
async def launched(
    directory: Path, config: str = "resctrl: fake\n", program: tuple[str, ...] = ("-m", "nri_resctrl_plugin")
) -> AsyncIterator[Launched]:
    """Start it with three variables, a connection and nowhere to write to."""
    path = directory / "nri.sock"
    async with RuntimeSide(path, config=config) as runtime:
        with socket.socket(socket.AF_UNIX) as side:
            side.connect(str(path))
            process = subprocess.Popen(  # noqa: ASYNC220 - starting is a fork
                [sys.executable, *program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=SOURCES,
                env={
                    "NRI_PLUGIN_NAME": "resctrl",
                    "NRI_PLUGIN_IDX": "07",
                    "NRI_PLUGIN_SOCKET": str(side.fileno()),
                },
                pass_fds=[side.fileno()],
            )
        try:
            yield Launched(runtime, process)
        finally:
            process.kill()
            process.wait()


@in_loop
async def test_flags_and_settings_come_with_configure(tmp_path: Path) -> None:
    """Everything that a flag sets elsewhere stands in the runtime's drop-in file."""
    events, log = tmp_path / "events.jsonl", tmp_path / "log"
    log.write_text("kept\n")
    log.chmod(0o640)
    config = (
        f"group_prefix: ours_\nresctrl: fake\nfake_rmids: 2\nevents: {events}\nlog_file: {log}\n"
        "log_format: json\nretry_interval: 0\ncleanup_on_exit: false\n"
    )
    async with launched(tmp_path, config) as it:
        peer = await it.runtime.synchronized()
        assert (peer.name, peer.idx) == ("resctrl", "07")
        await it.runtime.run_pod(POD)
        await until(lambda: events.exists() and events.read_text().endswith("\n"), "it tells the pod", 10)
        event = event_from_line(events.read_text().splitlines()[0])
        assert str(event.group_state.path).endswith("/ours_uid")  # type: ignore[union-attr]
        await it.runtime.stop()
        assert await it.ended() == Exit.OK
    text = log.read_text()
    assert text.startswith("kept\n"), "the log is appended"
    for told in ("startup_cleanup", "connection_ended"):
        assert f'"event": "{told}"' in text
    assert "configuration_refused" not in text


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("resctrl: fake\nlog_file: log\nprefix: x\n", "unknown key 'prefix'"),
        ("resctrl: fake\nretry_interval: soon\n", "retry_interval: 'soon' is no number of seconds"),
        ("{{{{", "is no YAML"),
        ("group_prefix: ''\n", "group_prefix"),
        ("resctrl: true\n", "resctrl: must be text or a number"),
    ],
)
def test_refused_settings_never_end_it(tmp_path: Path, config: str, reason: str) -> None:
    """It registers, is synchronized, answers events and stays; its defaults have no file to write to."""

    @in_loop
    async def play() -> None:
        heard = tmp_path / "log.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(str(heard))
            log.setblocking(False)
            script = (
                "import sys, nri_resctrl_plugin.cli.journal as j, nri_resctrl_plugin.__main__ as m\n"
                f"j.Journal.__init__.__defaults__ = ({str(heard)!r},)\n"
                "sys.exit(m.main())"
            )
            async with launched(tmp_path, config, ("-c", script)) as it:
                await it.runtime.synchronized()
                await it.runtime.run_pod(POD)
                said: list[str] = []

                def told() -> bool:
                    with contextlib.suppress(BlockingIOError):
                        said.append(log.recv(9000).decode())
                    return any(reason in line for line in said)

                await until(told, f"the journal has {reason!r}; it has {said}", 10)
                assert it.process.poll() is None
                assert it.runtime.dropped == []
                await it.runtime.stop()
                await it.ended()

    play()


@pytest.mark.parametrize(
    "line", ["log_file: {}", "log_file: '{}'", 'log_file:  "{}"  # here', "log_file: {} #"]
)
def test_a_refusal_stands_in_the_file_that_was_named(tmp_path: Path, line: str) -> None:
    """One wrong line does not move the log to where nobody looks."""

    @in_loop
    async def play() -> None:
        log = tmp_path / "the log"
        async with launched(tmp_path, f"resctrl: fake\n{line.format(log)}\nauto_mount: perhaps\n") as it:
            await it.runtime.synchronized()
            wanted = "the runtime's configuration:3: auto_mount: must be true or false, not 'perhaps'"
            await until(lambda: log.exists() and wanted in log.read_text(), "the file has the reason", 10)

    play()


@in_loop
async def test_nothing_is_swept_where_the_settings_are_refused(tmp_path: Path) -> None:
    """It serves with its flags and the defaults, and removes nothing: whose groups they are is not known."""
    events, log = tmp_path / "events", tmp_path / "log"
    program = ("-m", "nri_resctrl_plugin", "run", "--resctrl=fake", f"--events={events}", f"--log-file={log}")
    async with launched(tmp_path, "group_prefix: 5\n", program) as it:
        await it.runtime.synchronized()
        await it.runtime.run_pod(POD)
        await until(lambda: events.exists() and events.read_text(), "it tells the pod", 10)
    assert "group_prefix: must be text, not 5" in log.read_text()
    assert "startup_cleanup" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(HAS_RESCTRL, reason="this machine has resctrl: nothing is missing")
@in_loop
async def test_a_machine_without_resctrl(tmp_path: Path) -> None:
    """Elsewhere that ends the program; a launched one stays connected, idle, and ends with the runtime."""
    log = tmp_path / "log"
    async with launched(tmp_path, f"log_file: {log}\n") as it:
        await it.runtime.synchronized()
        await until(
            lambda: log.exists() and "this machine has no resctrl" in log.read_text(), "it says so", 10
        )
        for number in range(5):
            await it.runtime.run_pod(PodSandbox(id=f"s{number}", uid=f"u{number}"))
        assert it.process.poll() is None
        assert it.runtime.dropped == []
        await it.runtime.stop()
        assert await it.ended() == Exit.UNSUPPORTED


@pytest.mark.parametrize(
    "sabotage",
    [
        "sys.modules['yaml'] = None",  # a package that is missing
        "sys.modules['nri_resctrl_plugin.cli.run'] = None",  # a part of our own that is missing
        "import nri_resctrl_plugin.cli.run as r; r.run = lambda *a, **k: 1 // 0",  # a bug
        "import nri_resctrl_plugin.cli as c; c._parser = lambda *a: sys.exit(2)",  # an end
    ],
)
def test_whatever_is_broken_the_runtime_starts(tmp_path: Path, sabotage: str) -> None:
    """A program that cannot begin registers all the same, and answers until the runtime closes."""

    @in_loop
    async def play() -> None:
        script = f"import sys\n{sabotage}\nfrom nri_resctrl_plugin.__main__ import main\nsys.exit(main())"
        async with launched(tmp_path, "", ("-c", script)) as it:
            await it.runtime.synchronized()
            await it.runtime.run_pod(POD)
            assert it.process.poll() is None
            assert it.runtime.dropped == []
            await it.runtime.stop()
            assert await it.ended() != 0

    play()


@in_loop
async def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """It costs only itself: the plugin serves."""
    events = tmp_path / "events"
    config = f"resctrl: fake\nlog_file: {tmp_path / 'no' / 'log'}\nevents: {events}\n"
    async with launched(tmp_path, config) as it:
        await it.runtime.synchronized()
        await it.runtime.run_pod(POD)
        await until(lambda: events.exists() and events.read_text(), "it tells the pod", 10)


def test_a_descriptor_that_is_none(tmp_path: Path) -> None:
    """Nobody listens at the other end of nothing: it ends at once, with the reason."""
    environment = {"NRI_PLUGIN_SOCKET": "987"}
    done = subprocess.run(
        [sys.executable, "-m", "nri_resctrl_plugin"], check=False, cwd=SOURCES, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == Exit.LOST
    assert done.stderr == (
        "nri-resctrl-plugin: descriptor 987 is no connection to a runtime: Bad file descriptor\n"
    )


def test_other_commands_do_not_touch_the_connection() -> None:
    """Asked for its version in such an environment, the program tells it and says nothing to the runtime."""
    left, right = socket.socketpair()
    with left, right:
        environment = {"NRI_PLUGIN_SOCKET": str(left.fileno())}
        subprocess.run(
            [sys.executable, "-m", "nri_resctrl_plugin", "--version"],
            check=True, cwd=SOURCES, env=environment, pass_fds=[left.fileno()], capture_output=True,
        )  # fmt: skip
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv(1)


class TestFlagsInAFile:
    """The file of `--config` may hold flags too."""

    def refused(self, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
        """Run with a file, and return why it ended with status 78."""
        file = tmp_path / "plugin.yaml"
        file.write_text(text)
        assert main(["run", "--resctrl=fake", "--config", str(file), *flags], {}) == Exit.CONFIG
        return capsys.readouterr().err.splitlines()[-1].removeprefix(f"nri-resctrl-plugin: {file}")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("fake_rmids: many", ":1: fake_rmids: invalid int value: 'many'"),
            ("\nlog_level: loud", ":2: log_level: invalid choice: 'loud'"),
            ("cleanup_on_exit: 1", ":1: cleanup_on_exit: must be true or false, not 1"),
            ("events: true", ":1: events: must be text or a number, not True; put it in quotes"),
            ("events: [a]", ":1: events: must be text or a number, not ['a']; put it in quotes"),
            ("log-file: x", ":1: unknown key 'log-file'; did you mean 'log_file'?"),
            ("config: other.yaml", ":1: unknown key 'config'"),
            ("command: demo", ":1: unknown key 'command'"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
    ) -> None:
        """Each says the file, the line, the key and why."""
        assert self.refused(tmp_path, text, capsys).startswith(reason)

    def test_a_flag_wins(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A flag of the command line wins over the file's; what it does not name stays."""
        file = tmp_path / "plugin.yaml"
        missing = tmp_path / "none.sock"
        file.write_text(f"socket_path: {missing}\nexit_on_disconnect: true\nlog_format: json\n")
        arguments = ["run", "--resctrl=fake", "--config", str(file)]
        assert main(arguments, {}) == Exit.LOST
        assert f"no socket at {missing}" in capsys.readouterr().err
        assert main([*arguments, "--socket-path=/nowhere/x"], {}) == Exit.LOST
        assert "no socket at /nowhere/x" in capsys.readouterr().err

    def test_a_log_file_that_cannot_be_opened(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Somebody who starts the program is told, and it ends."""
        assert main(["run", "--resctrl=fake", f"--log-file={tmp_path}"], {}) == Exit.IO
        assert "cannot write the log to" in capsys.readouterr().err


class TestJournal:
    """What goes to the system's log."""

    def test_lines(self, tmp_path: Path) -> None:
        """One message a line, with priority, name and pid; a long one is cut; nobody listens: no error."""
        path = tmp_path / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            sender = Journal(str(path))
            sender.send(3, "one\n\ntwo\n")
            sender.send(6, "x" * 10000)
            head = f"nri-resctrl-plugin[{os.getpid()}]: ".encode()
            assert listener.recv(20000) == b"<27>" + head + b"one"
            assert listener.recv(20000) == b"<27>" + head + b"two"
            assert len(listener.recv(20000)) == journal.LINE_LIMIT
        path.unlink()
        sender.send(3, "nobody hears this")
        sender.close()

    def test_records(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A record has its level as the message's priority, and no time of its own: the journal has one."""
        import structlog  # noqa: PLC0415 - its configuration is put back below

        path = tmp_path / "log"
        sender = Journal(str(path))
        monkeypatch.setattr(logs, "Journal", lambda: sender)
        before = structlog.get_config()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            try:
                logs.set_up_logs("text", "info", logs.JOURNAL)
                log = structlog.get_logger("x")
                log.debug("not told")
                log.warning("told", pod="a\nb")
                log.error("worse")
            finally:
                structlog.configure(**before)
                sender.close()
            first, second = listener.recv(9000).decode(), listener.recv(9000).decode()
        assert first.startswith("<28>")
        assert first.partition("]: ")[2].split() == ["[warning", "]", "told", r"pod=a\nb"]
        assert second.startswith("<27>")

    def test_where_nobody_reads(self, tmp_path: Path) -> None:
        """Closed, or /dev/null; a file or a pipe is somewhere."""
        assert logs.leads_nowhere(None)
        with Path(os.devnull).open("w") as nowhere, (tmp_path / "x").open("w") as somewhere:
            assert logs.leads_nowhere(nowhere)
            assert not logs.leads_nowhere(somewhere)
        assert logs.leads_nowhere(somewhere)


def test_nothing_from_outside_speaks_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escapes, newlines and their Unicode relatives are spelled out, in values and in tracebacks."""
    import structlog  # noqa: PLC0415 - its configuration is put back below

    hostile = "a\x1b[2Jb\nc\x85d\u2028e\x07"
    before = structlog.get_config()
    try:
        for style in ("text", "json"):
            logs.set_up_logs(style, "info")
            structlog.get_logger("x").info("told", name=hostile, names=[hostile])
            structlog.get_logger("x").error("worse", exc_info=ValueError(hostile))
    finally:
        structlog.configure(**before)
    text = capsys.readouterr().err
    assert all(line.isprintable() for line in text.split("\n"))
    first, *rest = text.split("\n")
    assert r"name=a\x1b[2Jb\nc\x85d\u2028e\x07" in first
    assert any(r"ValueError: a\x1b[2Jb" in line for line in rest)


def test_waiting_is_no_part_of_the_start() -> None:
    """Without NRI_PLUGIN_SOCKET nobody speaks ahead: the module for it is not loaded."""
    script = (
        "import sys; from nri_resctrl_plugin.__main__ import main; sys.argv = ['x', '--version']\n"
        "try: main()\nexcept SystemExit: pass\nprint('nri_resctrl_plugin.nri.ahead' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=SOURCES, capture_output=True, text=True
    )
    assert out.stdout.splitlines()[-1] == "False"


def test_asyncio_is_not_needed_to_complain() -> None:
    """What says why a launched plugin is idle is of the standard library alone, and small."""
    script = (
        "import sys, nri_resctrl_plugin.cli.exits\nprint('asyncio' in sys.modules, 'attr' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=SOURCES, capture_output=True, text=True
    )
    assert out.stdout == "False False\n"
