"""The command `cleanup`: what it lists is what it removes, and nothing of anybody else."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.exits import Exit
from resctrl.testing import FakeFs, FaultyFs
from resctrl.testing.fake_fs import Privilege
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resctrl import FsProvider

    Command = Callable[..., tuple[int, str]]


@pytest.fixture
def cleanup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, on a machine: returns the status and what was printed, errors too."""

    def run(fs: FsProvider, *flags: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        monkeypatch.setattr("nri_resctrl_plugin.cli.cleanup.RealFs", lambda: fs)
        status = main(["cleanup", *flags], environment or {})
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def populated() -> FakeFs:
    """Return a machine with groups of ours and of others at every place."""
    fs = FakeFs(num_rmids=32, num_closids=8)
    for group in (MON / "pod_a", MON / "foreign", ROOT / "pod_control", ROOT / "gold"):
        fs.create_dir(group)
    fs.create_dir(ROOT / "gold" / "mon_groups" / "pod_b")
    fs.create_dir(ROOT / "pod_control" / "mon_groups" / "inside")
    return fs


def directories(fs: FsProvider) -> set[Path]:
    """Return every group there is."""
    controls = [
        ROOT / name for name in fs.read_child_dirs(ROOT) if name not in {"info", "mon_data", "mon_groups"}
    ]
    found = {*controls}
    for control in (ROOT, *controls):
        found |= {control / "mon_groups" / name for name in fs.read_child_dirs(control / "mon_groups")}
    return found


def test_it_removes_ours_and_says_which(cleanup: Command) -> None:
    """At both levels, with the threads that fall back; the groups of others stay."""
    fs = populated()
    tids = [fs.spawn(), fs.spawn()]
    fs.write_all(MON / "pod_a" / "tasks", [f"{tid}\n".encode() for tid in tids])
    status, text = cleanup(fs)
    assert status == Exit.OK
    assert text.splitlines() == [
        f"removed {ROOT}/pod_control  (0 threads)",
        f"removed {MON}/pod_a  (2 threads)",
        "2 removed, 2 without the prefix stay",
    ]
    assert directories(fs) == {MON / "foreign", ROOT / "gold", ROOT / "gold" / "mon_groups" / "pod_b"}


def test_a_dry_run_removes_nothing(cleanup: Command) -> None:
    """It lists the same groups, and every group is still there."""
    fs = populated()
    before = directories(fs)
    status, text = cleanup(fs, "--dry-run")
    assert status == Exit.OK
    assert text.splitlines() == [
        f"would remove {ROOT}/pod_control  (0 threads)",
        f"would remove {MON}/pod_a  (0 threads)",
        "2 would be removed, 2 without the prefix stay",
    ]
    assert directories(fs) == before


def test_below_control_groups(cleanup: Command) -> None:
    """With the flag, ours below other people's control groups go too."""
    fs = populated()
    assert (
        f"would remove {ROOT}/gold/mon_groups/pod_b" in cleanup(fs, "--dry-run", "--below-control-groups")[1]
    )
    assert cleanup(fs, "--below-control-groups")[0] == Exit.OK
    assert directories(fs) == {MON / "foreign", ROOT / "gold"}


NAMES = st.sampled_from(["pod_a", "pod_b", "x", "podx", "pod_"])


@given(
    mon=st.sets(NAMES, max_size=4),
    controls=st.dictionaries(NAMES, st.sets(NAMES, max_size=2), max_size=3),
    below=st.booleans(),
)
def test_the_list_is_what_goes(mon: set[str], controls: dict[str, set[str]], below: bool) -> None:
    """Whatever groups there are: what a dry run lists, with all below it, is what the real run removes."""
    fs = FakeFs(num_rmids=64, num_closids=8)
    for name in mon:
        fs.create_dir(MON / name)
    for control, inside in controls.items():
        fs.create_dir(ROOT / control)
        for name in inside:
            fs.create_dir(ROOT / control / "mon_groups" / name)
    before = directories(fs)
    flags = ["--below-control-groups"] if below else []
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("nri_resctrl_plugin.cli.cleanup.RealFs", lambda: fs)
        patch.setattr("nri_resctrl_plugin.cli.cleanup._Sweeper.say", lambda _, line: said.append(line))
        assert main(["cleanup", "--dry-run", *flags], {}) == Exit.OK
        listed = {line.split()[2] for line in said[:-1]}
        assert directories(fs) == before
        assert main(["cleanup", *flags], {}) == Exit.OK
    gone = {str(path) for path in before - directories(fs)}
    assert {path for path in gone if not any(path.startswith(f"{each}/") for each in listed)} == listed


def test_an_empty_prefix_is_refused(cleanup: Command) -> None:
    """Nothing is removed, not even listed: status 78, from a flag as from a variable."""
    fs = populated()
    before = directories(fs)
    for arguments in (["--group-prefix", ""], ["--group-prefix=", "--dry-run"]):
        status, text = cleanup(fs, *arguments)
        assert status == Exit.CONFIG
        assert text == "nri-resctrl-plugin: the group prefix is empty: every group would be removed\n"
    assert cleanup(fs, environment={"NRI_RESCTRL_GROUP_PREFIX": ""})[0] == Exit.CONFIG
    assert directories(fs) == before


def test_a_group_that_stays(cleanup: Command) -> None:
    """One that cannot be removed is told, the others go, and the status is 1."""
    faulty = FaultyFs(populated())
    faulty.fail("remove_dir", errno.EPERM, path=ROOT / "pod_control")
    status, text = cleanup(faulty)
    assert status == Exit.UNUSABLE
    assert f"cannot remove {ROOT}/pod_control  (0 threads): Operation not permitted" in text
    assert text.splitlines()[-1] == "1 removed, 2 without the prefix stay, 1 could not be removed"
    assert MON / "pod_a" not in directories(faulty)


def test_a_group_that_goes_by_itself(cleanup: Command) -> None:
    """Somebody else was faster: no failure."""
    fs = populated()
    faulty = FaultyFs(fs)
    faulty.before("remove_dir", fs.remove_dir, path=MON / "pod_a")
    status, text = cleanup(faulty)
    assert status == Exit.OK
    assert "1 went by themselves" in text


def test_threads_that_cannot_be_counted(cleanup: Command) -> None:
    """Are unknown, and no reason to stop."""
    faulty = FaultyFs(populated())
    faulty.fail("read_text", errno.EIO, path=MON / "pod_a" / "tasks")
    status, text = cleanup(faulty)
    assert status == Exit.OK
    assert f"removed {MON}/pod_a  (threads unknown)" in text


@pytest.mark.parametrize(
    ("fs", "status", "complaint"),
    [
        (FakeFs(mounted=False), Exit.UNSUPPORTED, "cannot sweep groups at '/sys/fs/resctrl'"),
        (FakeFs(supported=False), Exit.UNSUPPORTED, "no resctrl at all"),
    ],
)
def test_nothing_to_sweep(cleanup: Command, fs: FakeFs, status: Exit, complaint: str) -> None:
    """Where there are no groups that is said."""
    ended, text = cleanup(fs)
    assert ended == status
    assert complaint in text


def test_no_permission(cleanup: Command) -> None:
    """A user who may not: each group is told, none goes; where not even a listing is allowed, status 77."""
    fs = populated()
    fs.privilege = Privilege.USER
    status, text = cleanup(fs)
    assert status == Exit.UNUSABLE
    assert text.count("Permission denied") == 2
    faulty = FaultyFs(fs)
    faulty.fail("read_child_dirs", errno.EACCES, path=ROOT)
    assert cleanup(faulty)[0] == Exit.PERMISSION


def test_names_do_not_steer_the_terminal(cleanup: Command) -> None:
    """A group's name is anything; what is printed is harmless."""
    fs = FakeFs()
    fs.create_dir(MON / "pod_\x1b[2J")
    assert "\x1b" not in cleanup(fs)[1]
    assert directories(fs) == set()


def test_nobody_listens(cleanup: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is gone does not end the sweep half-way."""

    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    fs = populated()
    assert cleanup(fs)[0] == Exit.OK
    assert MON / "pod_a" not in directories(fs)


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry", "removing"])
def test_a_list_that_is_lost(cleanup: Command, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    """On a full disk the sweep goes on to its end, and the status tells that what it said is lost."""

    def full(*words: object, file: object = None, **_: object) -> None:
        if file is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        complaints.append(words[0])

    complaints: list[object] = []
    monkeypatch.setattr("builtins.print", full)
    fs = populated()
    assert cleanup(fs, *flags)[0] == Exit.IO
    assert complaints == ["nri-resctrl-plugin: cannot write to standard output: No space left on device"]
    assert (MON / "pod_a" in directories(fs)) == bool(flags)


class TestPlace:
    """Which groups are ours, and where: as for `run`."""

    def test_later_wins(self, cleanup: Command, tmp_path: Path) -> None:
        """Defaults, the file, variables, flags; the file may hold the flags of `run` too."""
        config = tmp_path / "plugin.yaml"
        config.write_text("group_prefix: file_\nevents: /run/events.jsonl\nretry_interval: 30\n")
        fs = FakeFs(num_rmids=16)
        for name in ("pod_x", "file_x", "variable_x", "flag_x"):
            fs.create_dir(MON / name)
        variable = {"NRI_RESCTRL_GROUP_PREFIX": "variable_"}
        named = ["--config", str(config)]

        def listed(*flags: str, environment: dict[str, str] | None = None) -> str:
            return cleanup(fs, "--dry-run", *flags, environment=environment)[1].split()[2].rpartition("/")[2]

        assert listed() == "pod_x"
        assert listed(environment=variable) == "variable_x"
        assert listed("--group-prefix", "flag_", environment=variable) == "flag_x"
        assert listed(*named) == "file_x"
        assert listed(environment={"NRI_RESCTRL_CONFIG": str(config)}) == "file_x"
        assert listed(*named, environment=variable) == "variable_x"
        assert listed(*named, "--group-prefix", "flag_", environment=variable) == "flag_x"

    def test_another_root(self, cleanup: Command, tmp_path: Path) -> None:
        """The root is taken from the same places."""
        fs = FakeFs(root=tmp_path)
        fs.create_dir(tmp_path / "mon_groups" / "pod_x")
        assert "1 would be removed" in cleanup(fs, "--dry-run", "--resctrl-root", str(tmp_path))[1]
        environment = {"NRI_RESCTRL_RESCTRL_ROOT": str(tmp_path)}
        assert "1 would be removed" in cleanup(fs, "--dry-run", environment=environment)[1]
        assert cleanup(fs, "--dry-run")[0] == Exit.UNSUPPORTED
