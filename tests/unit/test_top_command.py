"""The command `top`: on a terminal and piped, its keys, and every way in which it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.exits import Exit
from resctrl.testing import FakeFs, FaultyFs
from tests.unit.terminals import PATIENCE, Terminal, in_terminal, without_sequences

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = [sys.executable, "-m", "nri_resctrl_plugin", "top", "--resctrl=fake"]
XTERM = {"TERM": "xterm"}
LAST_LINE = r"q quit"
ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def live() -> Iterator[Terminal]:
    """The command on a terminal of 24 lines, its first picture drawn."""
    with Terminal([*PROGRAM, "--interval", "0.2"], XTERM, (24, 100)) as terminal:
        terminal.read_until(LAST_LINE)
        yield terminal


def picture(text: str) -> list[str]:
    """Return the lines of the last whole picture."""
    whole = text.split("\x1b[H")
    (*_, last) = [each for each in whole if "q quit" in each]
    return without_sequences(last).split("\r\n")


def groups_of(lines: list[str]) -> list[str]:
    """Return the names of the groups of a picture or a table, in order."""
    head = next(number for number, line in enumerate(lines) if line.startswith("GROUP"))
    return [line.split()[0] for line in lines[head + 1 :] if line.strip() and "q quit" not in line]


class TestPiped:
    """No terminal: text or JSON, one after the other."""

    def test_once(self) -> None:
        """One table with rates, without any escape sequence, and status 0."""
        run = subprocess.run(
            [*PROGRAM, "--once", "--interval", "0.2"], capture_output=True, text=True, check=False,
            timeout=PATIENCE, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        assert (run.returncode, run.stderr) == (0, "")
        heading, head, *rows = run.stdout.splitlines()
        assert re.fullmatch(r"\d+ groups, \d+ ours \(\*\), \d+ of 32 RMIDs free", heading)
        assert head.split()[:1] == ["GROUP"]
        web = next(row.split() for row in rows if row.startswith("pod_web-frontend"))
        assert web[1] == "monitor*"
        assert float(web[3]) > 0, "the rate is there at the first table"
        assert "\x1b" not in run.stdout

    def test_so_many(self) -> None:
        """`-n 3`: three tables, an empty line between them."""
        run = subprocess.run(
            [*PROGRAM, "-n", "3", "--interval", "0.1"],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        tables = run.stdout.split("\n\n")
        assert len(tables) == 3
        assert all("pod_web-frontend" in each for each in tables)

    def test_json(self) -> None:
        """`-o json`: one object a line, numbered, and sorted as asked."""
        run = subprocess.run(
            [*PROGRAM, "-o", "json", "-n", "2", "--interval", "0.1", "--sort", "name", "--ours"],
            capture_output=True, text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip
        told = [json.loads(line) for line in run.stdout.splitlines()]
        assert [each["seq"] for each in told] == [1, 2]
        names = [group["name"] for group in told[1]["groups"]]
        assert names == sorted(names)
        assert all(group["ours"] for group in told[1]["groups"])
        assert all(group["rates"]["mbm_total_bytes"]["complete"] for group in told[1]["groups"])

    def test_the_cadence(self) -> None:
        """Tables come at their interval, however long a look takes."""
        began = time.monotonic()
        subprocess.run(
            [*PROGRAM, "-n", "6", "--interval", "0.25"], capture_output=True, check=True, timeout=PATIENCE
        )
        assert time.monotonic() - began >= 6 * 0.25

    def test_a_reader_that_goes_away(self) -> None:
        """`top | head`: it ends at its next table, with status 0 and without a word."""
        run = subprocess.Popen(
            [*PROGRAM, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        assert run.stderr is not None
        assert "groups" in run.stdout.readline()
        run.stdout.close()
        assert run.wait(timeout=PATIENCE) == 0
        assert run.stderr.read() == ""
        run.stderr.close()

    def test_a_disk_that_is_full(self) -> None:
        """What cannot be written is told: status 74."""
        with Path("/dev/full").open("w") as full:
            run = subprocess.run(
                [*PROGRAM, "--once", "--interval", "0.1"], stdout=full, stderr=subprocess.PIPE, text=True,
                check=False, timeout=PATIENCE,
            )  # fmt: skip
        assert run.returncode == Exit.IO
        assert run.stderr.startswith("nri-resctrl-plugin: cannot write to standard output: No space left")

    def test_an_interrupt(self) -> None:
        """Ctrl-C is how a user ends it: status 0, no traceback."""
        run = subprocess.Popen(
            [*PROGRAM, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=PATIENCE)
        assert (run.returncode, errors) == (0, "")

    def test_an_encoding_without_letters(self) -> None:
        """Where only ASCII can be written, names are written with question marks."""
        run = subprocess.run(
            [*PROGRAM, "--once", "--interval", "0.1", "--group-prefix", "été_"], capture_output=True,
            check=True, timeout=PATIENCE, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert b"?t?_web-frontend" in run.stdout

    def test_a_closed_output(self) -> None:
        """With standard output closed that is said."""
        command = ["sh", "-c", '"$@" >&-', "sh", *PROGRAM]
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
        assert run.returncode == Exit.IO
        assert "nowhere to show" in run.stderr


class TestLive:
    """On a terminal."""

    def test_a_picture(self, live: Terminal) -> None:
        """It fills the other screen, hides the cursor, and is drawn anew with moving numbers."""
        assert live.text.startswith(ALTERNATE + HIDDEN)
        first = picture(live.text)
        live.read_until(LAST_LINE)
        live.read_until(LAST_LINE)
        second = picture(live.text)
        assert len(first) == len(second) == 24
        assert re.match(r"\d\d:\d\d:\d\d  (9|10) groups, ", first[0])
        assert "sorted by occupancy" in first[1]
        assert groups_of(second)[0] == "(default)"
        assert first != second
        assert "\x1b[1mGROUP" in live.text, "the head is bold"

    def test_quit(self, live: Terminal) -> None:
        """`q` ends it with status 0, and the terminal is as before: screen, cursor, modes."""
        live.type("q")
        assert live.wait() == 0
        assert live.text.endswith(SHOWN + NORMAL)
        assert live.current_modes == live.modes

    def test_modes(self, live: Terminal) -> None:
        """While it runs keys come at once and are not echoed."""
        assert live.current_modes != live.modes

    @pytest.mark.parametrize("end", ["\x03", signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_ends(self, live: Terminal, end: str | signal.Signals) -> None:
        """Ctrl-C, and the signals of users and supervisors, leave the terminal as it was too."""
        if isinstance(end, str):
            live.type(end)
        else:
            os.kill(live.pid, end)
        assert live.wait() == 0
        assert live.text.endswith(SHOWN + NORMAL)
        assert "Traceback" not in live.text
        assert live.current_modes == live.modes

    def test_the_terminal_goes_away(self, live: Terminal) -> None:
        """It ends, and leaves no process that draws for nobody."""
        live.hang_up()
        assert live.process.wait(timeout=PATIENCE) in {0, Exit.IO}

    def test_sorting(self, live: Terminal) -> None:
        """Letters choose the order, `r` turns it round."""
        live.type("n")
        live.read_until(r"sorted by name.*q quit")
        by_name = groups_of(picture(live.text))
        assert by_name == ["(default)", *sorted(by_name[1:])]
        live.type("r")
        live.read_until(r"sorted by name in reverse.*q quit")
        assert groups_of(picture(live.text)) == by_name[::-1]
        live.type("rh")
        live.read_until(r"sorted by threads.*q quit")
        live.read_until(LAST_LINE)
        assert groups_of(picture(live.text))[:2] == ["(default)", "gold"]
        for key, order in (("t", "total"), ("l", "local"), ("o", "occupancy")):
            live.type(key)
            live.read_until(f"sorted by {order}.*q quit")

    def test_resizing(self, live: Terminal) -> None:
        """A new size is followed at once: no line is longer, and no more lines are drawn."""
        live.resize(9, 70)
        live.read_until(r"rows 1 to 5.*q quit|rows 1 to 5")
        live.read_until(r"\x1b\[H.*reverse.*\x1b\[J")
        last = live.text.split("\x1b[H")[-1]
        lines = without_sequences(last).split("\r\n")
        assert len(lines) == 9
        assert all(len(line) <= 70 for line in lines)
        live.resize(30, 120)
        live.read_until(LAST_LINE)
        live.read_until(LAST_LINE)
        assert len(picture(live.text)) == 30

    def test_scrolling(self, live: Terminal) -> None:
        """Rows beyond the screen are reached by j, k, arrows and the space bar; the last one is the end."""
        live.resize(9, 120)
        live.type("n")
        live.read_until(r"sorted by name, rows 1 to 5.*q quit")
        live.type("j")
        live.read_until(r"rows 2 to 6.*q quit")
        live.type("\x1b[B")
        live.read_until(r"rows 3 to 7.*q quit")
        live.type("  ")
        live.read_until(r"rows [56] to (9|10).*q quit")
        live.type("\x1b[Ak")
        live.read_until(r"rows [34] to [78].*q quit")
        live.type("\x1b[5~\x1b[C\x1bx")
        live.read_until(r"rows 1 to 5.*q quit")

    def test_stop_and_continue(self, live: Terminal) -> None:
        """Ctrl-Z gives the shell its terminal back; `fg` draws again."""
        live.type("\x1a")
        live.read_until(re.escape(SHOWN + NORMAL) + r"\Z")
        live.stopped()
        assert live.current_modes == live.modes
        live.go_on()
        live.read_until(re.escape(ALTERNATE) + ".*q quit")
        live.type("q")
        assert live.wait() == 0
        assert live.current_modes == live.modes

    def test_no_colour(self) -> None:
        """NO_COLOR takes every colour and attribute; drawing in place remains."""
        with Terminal([*PROGRAM, "--interval", "0.1"], {**XTERM, "NO_COLOR": "1"}) as terminal:
            terminal.read_until(LAST_LINE)
            terminal.type("q")
            assert terminal.wait() == 0
            assert re.search(r"\x1b\[[0-9;]*m", terminal.text) is None
            assert ALTERNATE in terminal.text

    def test_a_dumb_terminal(self) -> None:
        """A terminal that can only print gets tables one after the other, as a pipe does."""
        status, text = in_terminal([*PROGRAM, "-n", "2", "--interval", "0.1"], {"TERM": "dumb"})
        assert status == 0
        assert "\x1b" not in text
        assert text.count("GROUP") == 2

    def test_a_number_of_tables_on_a_terminal(self) -> None:
        """`--once` prints on the ordinary screen, where it can be read afterwards."""
        status, text = in_terminal([*PROGRAM, "--once", "--interval", "0.1"], XTERM)
        assert status == 0
        assert ALTERNATE not in text
        assert text.count("GROUP") == 1

    def test_a_terminal_without_a_size(self) -> None:
        """A serial line tells a size of 0 by 0: 24 by 80 is taken."""
        with Terminal([*PROGRAM, "--interval", "0.1"], XTERM, (0, 0)) as terminal:
            terminal.read_until(LAST_LINE)
            assert len(picture(terminal.text)) == 24
            terminal.type("q")
            assert terminal.wait() == 0

    @pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
    def test_in_tmux(self, tmp_path: Path) -> None:
        """A real terminal shows the table, and after `q` what was on it before."""
        server = ["tmux", "-S", str(tmp_path / "tmux.sock"), "-f", "/dev/null"]
        command = " ".join(PROGRAM)
        line = f"echo before; {command} --interval 0.2; echo after; exec cat"
        start = ["new-session", "-d", "-x", "100", "-y", "20", "sh", "-c", line]
        subprocess.run([*server, *start], check=True, timeout=PATIENCE)
        try:
            shown = _pane_until(server, "q quit")
            assert shown.splitlines()[2].startswith("GROUP")
            assert "pod_postgres-0" in shown
            assert "before" not in shown
            subprocess.run([*server, "send-keys", "q"], check=True, timeout=PATIENCE)
            shown = _pane_until(server, "after")
            assert shown.split() == ["before", "after"]
        finally:
            subprocess.run([*server, "kill-server"], check=False, timeout=PATIENCE)


def _pane_until(server: list[str], word: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        capture = [*server, "capture-pane", "-p"]
        shown = subprocess.run(capture, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout
        if word in shown:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


class TestRefusals:
    """Where there is nothing to see."""

    @pytest.mark.parametrize(
        ("fs", "complaint"),
        [
            (
                FakeFs(supported=False),
                "resctrl is not mounted at /sys/fs/resctrl; `nri-resctrl-plugin doctor`",
            ),
            (FakeFs(mounted=False), "resctrl is not mounted at /sys/fs/resctrl; `nri-resctrl-plugin doctor`"),
            (FakeFs(monitoring=False), "this machine cannot monitor"),
        ],
    )
    def test_no_groups(
        self, fs: FakeFs, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It says what is missing and where to ask: status 69."""
        monkeypatch.setattr("nri_resctrl_plugin.cli.top.RealFs", lambda: fs)
        assert main(["top", "--once"], {}) == Exit.UNSUPPORTED
        assert complaint in capsys.readouterr().err

    def test_unmounted_while_it_runs(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """That ends it with the reason, not with a traceback."""
        faulty = FaultyFs(FakeFs(limbo=1.0))
        monkeypatch.setattr("nri_resctrl_plugin.cli.top.RealFs", lambda: faulty)
        monkeypatch.setattr(
            "nri_resctrl_plugin.cli.top.time.sleep",
            lambda _: faulty.fail("read_child_dirs", errno.ENOENT, path=Path("/sys/fs/resctrl")),
        )
        assert main(["top", "--once"], {}) == Exit.UNSUPPORTED
        assert "cannot list groups at '/sys/fs/resctrl': ENOENT" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [["--interval", "0"], ["--interval", "x"], ["-n", "0"], ["-n", "-1"], ["--sort", "size"],
         ["-o", "xml"], ["--once", "-n", "2"]],
    )  # fmt: skip
    def test_bad_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Wrong flags end with status 2."""
        with pytest.raises(SystemExit) as ended:
            main(["top", *arguments], {})
        assert ended.value.code == Exit.USAGE
        assert "error" in capsys.readouterr().err
