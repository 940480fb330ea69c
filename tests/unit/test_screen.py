"""`Screen`: a terminal's keys, sizes and signals, within this process: each comes when a test says."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.exits import Exit
from nri_resctrl_plugin.cli.screen import END, RESIZED, Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Line:
    """A terminal line: what is written to `stream` comes out at the other end, and is kept."""

    def __init__(self) -> None:
        self.primary, self.secondary = pty.openpty()
        self.stream: TextIO = os.fdopen(self.secondary, "w", encoding="utf-8", closefd=False)
        self.resize(24, 80)
        self._text = b""
        self._done = threading.Event()
        # A terminal's buffer is small: who writes waits for the reader.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, lines: int, columns: int) -> None:
        """Change the size."""
        fcntl.ioctl(self.primary, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.primary, keys)

    def when_taken(self, act: Callable[[], object]) -> None:
        """Do something as soon as a program has the terminal: what is typed before that stays behind."""
        before = self.modes()

        def wait() -> None:
            while self.modes() == before and not self._done.is_set():
                time.sleep(0.01)
            act()

        threading.Thread(target=wait, daemon=True).start()

    def until(self, holds: Callable[[str], bool]) -> None:
        """Wait until something is true of what was written."""
        deadline = time.monotonic() + 20.0
        while not holds(self._text.decode(errors="replace")):
            assert time.monotonic() < deadline, self._text
            time.sleep(0.005)

    def written(self) -> str:
        """Return what was written since the last call."""
        mark = b"\x00<read so far>"
        os.write(self.secondary, mark)
        deadline = time.monotonic() + 10.0
        while mark not in self._text:
            assert time.monotonic() < deadline, self._text
            time.sleep(0.001)
        text, _, self._text = self._text.partition(mark)
        return text.decode()

    def modes(self) -> list[object]:
        """Return the terminal's modes."""
        return list(termios.tcgetattr(self.secondary))

    def close(self) -> None:
        """End it."""
        self._done.set()
        self._reader.join()
        for descriptor in (self.primary, self.secondary):
            os.close(descriptor)

    def _read(self) -> None:
        while not self._done.is_set():
            if select.select([self.primary], [], [], 0.02)[0]:
                self._text += os.read(self.primary, 65536)


@pytest.fixture
def line() -> Iterator[Line]:
    """A terminal."""
    found = Line()
    yield found
    found.close()


@pytest.fixture
def screen(line: Line) -> Iterator[Screen]:
    """A screen on it."""
    with Screen(sys.stdin, line.stream) as found:  # pytest's stdin is no terminal: keys are left alone
        yield found


@pytest.fixture
def keyed(line: Line) -> Iterator[Screen]:
    """A screen with keys."""
    with Screen(line.stream, line.stream) as found:
        yield found


def test_everything_is_put_back(line: Line) -> None:
    """Modes, screen, cursor and signal handlers are afterwards as they were, also after an error."""
    numbers = (signal.SIGTERM, signal.SIGWINCH)
    modes, handlers = line.modes(), [signal.getsignal(number) for number in numbers]

    def fail() -> None:
        with Screen(line.stream, line.stream):
            assert line.modes() != modes
            assert signal.getsignal(signal.SIGTERM) not in handlers
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert line.modes() == modes
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert line.written().endswith("\x1b[?25h\x1b[?1049l")
    assert signal.set_wakeup_fd(-1) == -1


def test_a_picture_overwrites_the_one_before(screen: Screen, line: Line) -> None:
    """It begins at the top; the rest of each line and of the screen is cleared."""
    line.written()
    screen.draw(["one", "two"])
    assert line.written().replace("\r\r", "\r") == "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"nr", ["n", "r"]),
        (b"\x1b[A\x1b[Bj", ["up", "down", "j"]),
        (b"\x1b[5~\x1b[6~", ["page-up", "page-down"]),
        (b"\x1b[1;5C", ["\x1b[1;5C"]),
        (b"\x1bx", ["\x1bx"]),
        ("ü".encode(), ["ü"]),
        (b"\xff", []),
    ],
)
def test_keys(keyed: Screen, line: Line, typed: bytes, keys: list[str]) -> None:
    """Letters are themselves, arrows have names, several at once are told apart, rubbish is nothing."""
    line.type(typed)
    assert keyed.wait(5.0) == keys


def test_no_keys_without_a_terminal(screen: Screen, line: Line) -> None:
    """Where standard input is no terminal, the screen waits for its time alone."""
    line.type(b"q")
    assert screen.wait(0.05) == []


@pytest.mark.parametrize(
    ("number", "news"), [(signal.SIGWINCH, RESIZED), (signal.SIGTERM, END), (signal.SIGHUP, END)]
)
def test_signals(screen: Screen, number: signal.Signals, news: str) -> None:
    """A signal ends the wait at once, whether it came before or comes during it."""
    os.kill(os.getpid(), number)
    began = time.monotonic()
    assert screen.wait(30.0) == [news]
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert time.monotonic() - began < 5.0
    assert screen.wait(0.0) == []


def test_a_stop(keyed: Screen, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z: the terminal is given back before the process stops, and taken again when it goes on."""
    seen = []

    def stop(pid: int, number: int) -> None:
        seen.append((pid, number, signal.getsignal(signal.SIGTSTP), line.written()))

    line.written()
    signal.raise_signal(signal.SIGTSTP)
    monkeypatch.setattr("nri_resctrl_plugin.cli.screen.os.kill", stop)
    assert keyed.wait(5.0) == [RESIZED]
    assert seen == [(os.getpid(), signal.SIGTSTP, signal.SIG_DFL, "\x1b[?25h\x1b[?1049l")]
    assert line.written().startswith("\x1b[?1049h\x1b[?25l")


def test_sizes(screen: Screen, line: Line) -> None:
    """The size is what the terminal says, and one that says nothing has 24 by 80."""
    line.resize(50, 132)
    assert screen.size == (50, 132)
    line.resize(0, 0)
    assert screen.size == (24, 80)


def test_a_terminal_that_is_gone(keyed: Screen) -> None:
    """A read that fails, or finds the end, is the end."""
    with Path(os.devnull).open() as nothing:
        assert keyed._pressed(nothing.fileno()) == [END]
    assert keyed._pressed(-1) == [END]


class TestTop:
    """The command on a terminal, within this process."""

    @staticmethod
    def run(line: Line, act: Callable[[], object], **environment: str) -> int:
        """Run it, and do something as soon as it has the terminal; return the status."""
        line.when_taken(act)
        with (
            pytest.MonkeyPatch.context() as patch
        ):  # not a fixture: pytest changes both for each phase of a test
            for name in ("stdin", "stdout"):
                patch.setattr(sys, name, line.stream)
            return main(["top", "--resctrl=fake", "--interval", "0.1"], {"TERM": "xterm", **environment})

    def test_keys(self, line: Line) -> None:
        """Orders, turns, scrolling, keys that mean nothing; `q` ends it with status 0."""
        line.resize(9, 100)
        assert self.run(line, lambda: line.type(b"nrj\x1b[Bk xq")) == Exit.OK
        text = line.written()
        assert text.startswith("\x1b[?1049h")
        assert "sorted by occupancy, rows 1 to 5" in text

    def test_it_follows_the_clock(self, line: Line) -> None:
        """Pictures come by themselves, each from a new look; a signal ends it."""

        def end() -> None:
            line.until(lambda text: text.count("\x1b[J\x1b[H") >= 4)
            os.kill(os.getpid(), signal.SIGTERM)

        assert self.run(line, end, NO_COLOR="1") == Exit.OK
        text = line.written()
        assert text.count("\x1b[H") >= 4
        assert "\x1b[1m" not in text

    def test_a_screen_that_grows(self, line: Line) -> None:
        """Where everything fits again, the table begins with its first row."""
        line.resize(9, 100)

        def grow() -> None:
            line.type(b"n  ")
            line.until(lambda text: "rows 6 to 10" in text or "rows 5 to 9" in text)
            line.resize(40, 100)
            os.kill(os.getpid(), signal.SIGWINCH)
            line.until(
                lambda text: text.rpartition("\x1b[H")[2].count("\r\n") > 30 and "q quit" in text[-99:]
            )
            line.type(b"q")

        assert self.run(line, grow) == Exit.OK
        assert "(default)" in line.written().split("\x1b[H")[-1]

    def test_orders(self, line: Line) -> None:
        """What was pressed is what the next picture is sorted by."""

        def choose() -> None:
            line.type(b"n")
            line.until(lambda text: "sorted by name" in text)
            line.type(b"q")

        assert self.run(line, choose) == Exit.OK
        assert "sorted by name" in line.written()
