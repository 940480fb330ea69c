"""The command `doctor`: what it prints, and with which status it ends."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.doctor import doctor, lines_of
from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.cli.terminal import PLAIN, Paint
from nri_resctrl_plugin.doctor import Diagnosis, Finding, Level
from tests.unit.machines import Machine
from tests.unit.terminals import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = [sys.executable, "-m", "nri_resctrl_plugin", "doctor"]
NO_RESCTRL = "resctrl" not in Path("/proc/filesystems").read_text()
needs_no_resctrl = pytest.mark.skipif(not NO_RESCTRL, reason="this machine has resctrl")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A healthy node."""
    return Machine(tmp_path)


@pytest.fixture
def call(machine: Machine, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command on that node: returns the status and what was printed."""

    def run(environment: dict[str, str] | None = None, **flags: object) -> tuple[int, str]:
        options = {"json": False, "library": False, "probe": False, "socket_path": None, "config": None,
                   "resctrl_root": None, "group_prefix": None, **flags}  # fmt: skip
        status = doctor(Namespace(**options), environment or {}, options_of_run=Namespace, host=machine.host)
        return status, capsys.readouterr().out

    return run


def test_a_healthy_node(call: Callable[..., tuple[int, str]]) -> None:
    """One line a rung, a last word, status 0."""
    status, text = call()
    assert status == Exit.OK
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:-2] if line[1:2].strip()] == ["ok"] * 17
    assert lines[-2:] == ["", "usable: pods can be monitored"]
    assert call(library=True)[1].splitlines()[-1] == "usable: the library can be used"


def test_a_broken_node(machine: Machine, call: Callable[..., tuple[int, str]]) -> None:
    """The broken rungs are named at the end, the mend stands below its rung, status 1."""
    machine.without_runtime()
    status, text = call()
    assert status == 1
    assert text.splitlines()[-1] == "not usable: 2 of 17 fail: nri, runtime"
    assert re.search(
        r"^ FAIL  nri +there is no socket at /var/run/nri/nri.sock\n +No runtime", text, re.MULTILINE
    )
    assert "fix: containerd: put this into" in text


def test_what_is_for_a_file_can_be_pasted(machine: Machine, call: Callable[..., tuple[int, str]]) -> None:
    """A text for a file keeps its lines and their relative indentation, however narrow the screen is."""
    machine.without_runtime()
    lines = call()[1].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.strip() == "version = 2")
    block = lines[begin : begin + 5]
    indent = len(block[0]) - len(block[0].lstrip())
    assert [line[indent:] for line in block] == [
        "version = 2", '[plugins."io.containerd.nri.v1.nri"]', "  disable = false",
        "  disable_connections = false", '  socket_path = "/var/run/nri/nri.sock"',
    ]  # fmt: skip


def test_json(machine: Machine, call: Callable[..., tuple[int, str]]) -> None:
    """`--json` prints one object that says the same, with the same status."""
    assert json.loads(call(json=True)[1])["usable"] is True
    machine.without_runtime()
    status, text = call(json=True)
    told = json.loads(text)
    assert (status, told["usable"], told["failed"]) == (1, False, ["nri", "runtime"])
    assert len(told["rungs"]) == 17


def test_flags_reach_the_host(machine: Machine, call: Callable[..., tuple[int, str]]) -> None:
    """`--socket-path` is where it looks, `--probe` makes it try."""
    machine.without_runtime()
    assert "there is no socket at /run/other.sock" in call(socket_path="/run/other.sock")[1]
    assert "made pod_doctor-probe" in call(probe=True)[1]
    assert "doctor-probe" not in call()[1]


def test_names_do_not_steer_the_terminal() -> None:
    """What a stranger put into a name is shown with question marks."""
    finding = Finding(
        "neighbours", Level.WARN, "a group \x1b[2Jof\nothers", "It is\x07 so.", ("rmdir \x1b]0;x",)
    )
    text = "\n".join(lines_of(Diagnosis((finding,)), PLAIN, 80))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "rmdir ?]0;x" in text


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_sentences_are_broken_at_the_width(width: int) -> None:
    """Sentences keep within the screen, if it is not narrower than they can be; commands are never broken."""
    command = "mount -t resctrl resctrl /sys/fs/resctrl " + "x" * 200
    finding = Finding("mount", Level.FAIL, "found " * 40, "meaning " * 40, (command,))
    lines = list(lines_of(Diagnosis((finding,)), PLAIN, width))
    assert any(line.endswith(command) for line in lines)
    assert all(
        len(line) <= max(width, 53) for line in lines if "mount -t" not in line and "usable" not in line
    )


def test_colours() -> None:
    """Each level has its colour; without paint there is no escape sequence at all."""
    findings = tuple(Finding("x", level, "found") for level in Level)
    painted = "\n".join(lines_of(Diagnosis(findings), Paint(on=True), 80))
    assert {match[1] for match in re.finditer(r"\x1b\[([0-9;]+)m(?:ok|warn|FAIL|skip)", painted)} == {
        "32", "33", "1;31", "2"
    }  # fmt: skip
    assert "\x1b" not in "\n".join(lines_of(Diagnosis(findings), PLAIN, 80))


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_on_a_terminal(environment: dict[str, str], coloured: bool) -> None:
    """A terminal gets colours, unless NO_COLOR is set and not empty, or it cannot show any."""
    status, text = in_terminal([*PROGRAM, "--library"], environment)
    assert status in {Exit.OK, Exit.UNUSABLE}
    assert ("\x1b[" in text) is coloured
    assert "platform" in text


def test_a_terminal_without_a_size() -> None:
    """A serial line tells a size of 0 by 0: as many columns as in a pipe are taken."""
    command = [*PROGRAM, "--library"]
    plain = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert in_terminal(command, {"TERM": "dumb"}, (0, 0))[1].split("\r\n") == plain.split("\n")


@needs_no_resctrl
def test_the_true_pieces_are_named_here() -> None:
    """On a machine without resctrl the program ends with status 1, names the kernel, and how to mend it."""
    run = subprocess.run([*PROGRAM, "--json"], capture_output=True, text=True, check=False, timeout=60)
    told = json.loads(run.stdout)
    assert (run.returncode, run.stderr, told["usable"]) == (1, "", False)
    rungs = {each["rung"]: each for each in told["rungs"]}
    assert rungs["kernel"]["level"] == "fail"
    assert "CONFIG_" in "".join(rungs["kernel"]["fix"]) or "dmesg" in "".join(rungs["kernel"]["fix"])
    assert {rungs[name]["level"] for name in ("mount", "features", "rmids")} == {"skip"}
    flags = Path("/proc/cpuinfo").read_text()
    if "cqm_mbm_total" not in flags and "flags" in flags:
        assert rungs["processor"]["level"] == "fail"
    assert all(each["fix"] for each in told["rungs"] if each["level"] == "fail")


def test_a_reader_that_goes_away() -> None:
    """`doctor | head -1`: no complaint, and the status is the machine's."""
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [*PROGRAM, "--library"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writer)
    assert run.stderr == b""
    assert run.returncode in {Exit.OK, Exit.UNUSABLE}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_terminal_of_few_letters(tmp_path: Path, flags: list[str]) -> None:
    """What the encoding of standard output does not have is a question mark, and no traceback."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(
        [*PROGRAM, *flags, "--socket-path", str(tmp_path / "\N{LATIN SMALL LETTER U WITH DIAERESIS}.sock")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.stderr == ""
    assert ("\\u00fc.sock" if flags else "there is no socket at") in run.stdout
    assert run.returncode in {Exit.OK, Exit.UNUSABLE}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_full() -> None:
    """What cannot be printed is no diagnosis: status 74."""
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*PROGRAM], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert run.returncode == Exit.IO
    assert "cannot write to standard output" in run.stderr


def test_nobody_to_tell(
    machine: Machine, call: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With standard output closed that is said, and nothing is looked at."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Stop, match="nobody to tell") as stopped:
        call()
    assert stopped.value.status == Exit.IO


WITHOUT_EXTRA = """
import importlib.util, sys
extra = {"betterproto2", "cattrs", "grpclib", "structlog", "yaml"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in extra:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
importlib.util.find_spec = lambda name: None
from nri_resctrl_plugin.cli import main
sys.exit(main())
"""


def without_extra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program where the packages of the extra are not installed."""
    command = [sys.executable, "-c", WITHOUT_EXTRA, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_without_the_extra() -> None:
    """The doctor runs where the packages of the extra are not installed, and says that they are missing."""
    told = json.loads(without_extra("doctor", "--json").stdout)
    packages = next(each for each in told["rungs"] if each["rung"] == "packages")
    assert packages["level"] == "fail"
    assert packages["fix"] == ["pip install 'resctrl[nri]'"]


def test_the_other_tools_without_the_extra(tmp_path: Path) -> None:
    """`top` and `cleanup` run as well; only a file of settings needs the extra, and that is said."""
    assert without_extra("top", "--resctrl=fake", "--once", "--interval", "0.1").returncode == 0
    if NO_RESCTRL:
        assert without_extra("cleanup", "--dry-run").returncode == Exit.UNSUPPORTED
    run = without_extra("cleanup", "--config", str(tmp_path / "any.yaml"))
    assert run.returncode == Exit.UNSUPPORTED
    assert "a file of settings needs the extra: pip install 'resctrl[nri]'" in run.stderr


def test_a_setting_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root that is no absolute path, a prefix that no group can have, a file that is refused: status 78."""
    config = tmp_path / "plugin.yaml"
    config.write_text("group-prefix: x_\n")
    quiet = functools.partial(main, environment={})
    assert quiet(["doctor", "--resctrl-root", "relative"]) == Exit.CONFIG
    assert quiet(["doctor", "--group-prefix", "a/b"]) == Exit.CONFIG
    assert quiet(["doctor", "--config", str(config)]) == Exit.CONFIG
    told = capsys.readouterr().err
    assert "resctrl_root: must be an absolute path" in told
    assert "no group can be named 'a/b'" in told
    assert "plugin.yaml:1: unknown key 'group-prefix'" in told
