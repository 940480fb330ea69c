"""Whether resctrl is mounted, and mounting it: every combination of S6 in the small."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from resctrl import (
    NoPermissionError,
    NotMountedError,
    Resctrl,
    ResctrlConfig,
    ResctrlError,
    ResctrlIOError,
    SupportInfo,
    UnsupportedError,
)
from resctrl.mount import MountEntry, detect_support, ensure_mounted, is_mounted, parse_mountinfo
from resctrl.testing import FakeFs, FaultyFs, Privilege, RecordingFs
from tests.unit.fakes import ROOT

MOUNTINFO = Path("/proc/self/mountinfo")
LINE = "31 17 0:27 {root} {point} rw,relatime{optional} - {type} resctrl rw"


def line(
    point: str = "/sys/fs/resctrl", root: str = "/", fs_type: str = "resctrl", optional: str = ""
) -> str:
    """Return one line of mountinfo."""
    return LINE.format(point=point, root=root, type=fs_type, optional=optional)


class Proc(FakeFs):
    """A fake whose mountinfo is a given text."""

    def __init__(self, text: str, **machine: object) -> None:
        super().__init__(**machine)  # type: ignore[arg-type]
        self.text = text

    def read_text(self, path: Path) -> str:
        """Return the text for mountinfo."""
        return self.text if path == MOUNTINFO else super().read_text(path)


def test_a_line_of_the_kernel() -> None:
    """A line as Linux 6.12 writes it, and with any number of optional fields."""
    for optional in ("", " shared:7", " shared:7 master:3 propagate_from:2 unbindable"):
        entry = MountEntry("/", ROOT, "resctrl", ("rw", "relatime"), ("rw",))
        assert list(parse_mountinfo(line(optional=optional) + "\n")) == [entry]


def test_escapes_are_undone() -> None:
    """Blank, tab, newline and backslash come back from their octal form, and nothing else changes."""
    text = line(point=r"/mnt/a\040b\011c\012d\134040e", root=r"/x\040y")
    (entry,) = parse_mountinfo(text)
    assert (entry.root, entry.mount_point) == ("/x y", Path("/mnt/a b\tc\nd\\040e"))


@pytest.mark.parametrize("text", ["", "\n", "garbage", "1 2 3 / /x rw", "1 2 - a b c", "1 2 3 / /x rw - a"])
def test_lines_of_another_shape_are_skipped(text: str) -> None:
    """Nothing is made up from what cannot be read."""
    assert list(parse_mountinfo(text)) == []


@pytest.mark.parametrize(
    ("lines", "mounted"),
    [
        ([line()], True),
        ([line(fs_type="sysfs")], False),
        ([line(point="/sys/fs/resctrl2")], False),
        ([line(root="/mon_groups")], False),
        ([line(), line(fs_type="tmpfs")], False),
        ([line(fs_type="tmpfs"), line()], True),
        ([line(point="/mnt"), line()], True),
    ],
)
def test_mounted_is_what_mountinfo_says(lines: list[str], mounted: bool) -> None:
    """The type and the whole file system count, not the directory; what is covered does not count."""
    fs = Proc("\n".join(lines))
    assert fs.exists(ROOT)
    assert is_mounted(fs, ROOT) is mounted


def test_the_directory_alone_proves_nothing() -> None:
    """The kernel keeps /sys/fs/resctrl whether or not anything is mounted there."""
    fs = FakeFs(mounted=False)
    assert fs.exists(ROOT)
    assert not is_mounted(fs, ROOT)


@pytest.mark.parametrize(
    ("fs", "support"),
    [
        (
            FakeFs(),
            SupportInfo(kernel_support=True, mount_point=ROOT, mounted=True, writable=True, monitoring=True),
        ),
        (
            FakeFs(monitoring=False),
            SupportInfo(kernel_support=True, mount_point=ROOT, mounted=True, writable=True, monitoring=False),
        ),
        (
            FakeFs(privilege=Privilege.USER),
            SupportInfo(kernel_support=True, mount_point=ROOT, mounted=True, writable=False, monitoring=True),
        ),
        (
            FakeFs(mounted=False),
            SupportInfo(
                kernel_support=True, mount_point=None, mounted=False, writable=False, monitoring=False
            ),
        ),
        (
            FakeFs(supported=False),
            SupportInfo(
                kernel_support=False, mount_point=None, mounted=False, writable=False, monitoring=False
            ),
        ),
    ],
)
def test_detecting(fs: FakeFs, support: SupportInfo) -> None:
    """Each kind of machine is told as it is."""
    assert Resctrl.with_provider(fs).detect_support() == support


def test_mounted_elsewhere_is_told() -> None:
    """Mounted somewhere else is not mounted at the root, but known."""
    fs = FakeFs(root=Path("/mnt/resctrl"))
    support = detect_support(fs, ROOT)
    assert (support.mounted, support.mount_point) == (False, Path("/mnt/resctrl"))


def test_the_configured_root_wins() -> None:
    """Of several mounts of the one resctrl the configured one is told."""
    fs = Proc("\n".join([line(point="/mnt"), line(), line(point="/opt")]))
    assert detect_support(fs, ROOT).mount_point == ROOT
    assert detect_support(fs, Path("/nowhere")).mount_point == Path("/mnt")


def test_unmounted_while_looking() -> None:
    """A mount that goes away between two looks is not writable, and no error."""
    fs = FaultyFs(FakeFs())
    fs.fail("can_open_for_write", errno.ENOENT)
    assert detect_support(fs, ROOT).writable is False


def test_detecting_changes_nothing() -> None:
    """Looking only looks."""
    fs = RecordingFs(FakeFs())
    detect_support(fs, ROOT)
    assert {call.operation for call in fs.calls} <= {"read_text", "exists", "can_open_for_write"}


@pytest.mark.parametrize("path", [MOUNTINFO, Path("/proc/filesystems")])
def test_an_unreadable_proc_is_a_typed_error(path: Path) -> None:
    """Without /proc nothing is guessed."""
    fs = FaultyFs(FakeFs())
    fs.fail("read_text", errno.ENOENT, path=path, times=2)
    with pytest.raises(ResctrlIOError):
        detect_support(fs, ROOT)


# ensure_mounted


@pytest.mark.parametrize("auto_mount", [False, True])
def test_nothing_to_do(auto_mount: bool) -> None:
    """What is mounted is left as it is."""
    fs = RecordingFs(FakeFs())
    Resctrl.with_provider(fs).ensure_mounted(auto_mount=auto_mount)
    assert fs.count("mount_resctrl") == 0


def test_not_mounting_by_default() -> None:
    """Without leave to mount, nothing is mounted; the hint says how."""
    fs = RecordingFs(FakeFs(mounted=False))
    with pytest.raises(NotMountedError, match="mount -t resctrl") as caught:
        ensure_mounted(fs, ROOT, auto_mount=False)
    assert caught.value.path == ROOT
    assert fs.count("mount_resctrl") == 0


def test_mounting() -> None:
    """With leave it is mounted, once, and then it is."""
    fs = RecordingFs(FakeFs(mounted=False))
    ensure_mounted(fs, ROOT, auto_mount=True)
    ensure_mounted(fs, ROOT, auto_mount=True)
    assert fs.count("mount_resctrl") == 1
    assert is_mounted(fs, ROOT)


def test_unsupported_before_anything_is_touched() -> None:
    """Where the kernel has no resctrl neither mkdir nor mount is tried."""
    fs = RecordingFs(FakeFs(supported=False))
    with pytest.raises(UnsupportedError, match="/proc/filesystems"):
        ensure_mounted(fs, ROOT, auto_mount=True)
    assert fs.count("mount_resctrl") == fs.count("create_dir") == 0


def test_unsupported_without_leave_says_more() -> None:
    """Without leave it is not mounted, and the hint says that mounting would not help."""
    with pytest.raises(NotMountedError, match="no resctrl at all"):
        ensure_mounted(FakeFs(supported=False), ROOT, auto_mount=False)


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENODEV, UnsupportedError),
        (errno.EINVAL, UnsupportedError),
        (errno.ENOSYS, UnsupportedError),
        (errno.ENOTSUP, UnsupportedError),
        (errno.ENOENT, NotMountedError),
        (errno.EPERM, NoPermissionError),
        (errno.EACCES, NoPermissionError),
        (errno.EIO, ResctrlIOError),
    ],
)
def test_a_refused_mount(number: int, meaning: type[ResctrlError]) -> None:
    """The errno of mount(2) says what is wrong."""
    fs = FaultyFs(FakeFs(mounted=False))
    fs.fail("mount_resctrl", number)
    with pytest.raises(meaning) as caught:
        ensure_mounted(fs, ROOT, auto_mount=True)
    assert type(caught.value) is meaning
    assert caught.value.errno == number


def test_a_user_cannot_mount() -> None:
    """The kernel's own EPERM is a missing permission."""
    with pytest.raises(NoPermissionError):
        ensure_mounted(FakeFs(mounted=False, privilege=Privilege.USER), ROOT, auto_mount=True)


def test_somebody_else_was_faster() -> None:
    """EBUSY because it has just been mounted where it is wanted is a success."""
    inner = FakeFs(mounted=False)
    fs = FaultyFs(inner)
    fs.before("mount_resctrl", lambda _: inner.mount())
    ensure_mounted(fs, ROOT, auto_mount=True)
    assert is_mounted(fs, ROOT)


def test_mounted_in_another_namespace() -> None:
    """EBUSY and still not to be seen: somebody keeps it in a namespace of his own."""
    fs = FaultyFs(FakeFs(mounted=False))
    fs.fail("mount_resctrl", errno.EBUSY)
    with pytest.raises(NotMountedError, match="another mount namespace") as caught:
        ensure_mounted(fs, ROOT, auto_mount=True)
    assert caught.value.errno == errno.EBUSY
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("auto_mount", [False, True])
def test_mounted_somewhere_else(auto_mount: bool) -> None:
    """There is one resctrl: where it is mounted already, that place has to be the root."""
    fs = FakeFs(root=Path("/mnt/resctrl"))
    with pytest.raises(NotMountedError, match="'/mnt/resctrl'"):
        ensure_mounted(fs, ROOT, auto_mount=auto_mount)


def test_a_mount_that_cannot_be_seen() -> None:
    """A mount(2) that succeeds is verified."""
    fs = Proc(line(fs_type="sysfs"), mounted=False)
    with pytest.raises(NotMountedError) as caught:
        ensure_mounted(fs, ROOT, auto_mount=True)
    assert caught.value.errno is None
    assert caught.value.__cause__ is None


def test_the_mount_point_is_made() -> None:
    """A root that is not there is made, one level; somebody may have made it meanwhile."""
    elsewhere = Path("/resctrl")
    fs = FakeFs(mounted=False)
    ensure_mounted(fs, elsewhere, auto_mount=True)
    assert fs.mount_point == elsewhere
    raced = FaultyFs(FakeFs(mounted=False))
    raced.before("create_dir", raced.inner.create_dir)
    Resctrl.with_provider(raced, ResctrlConfig(root=elsewhere)).ensure_mounted(auto_mount=True)
    assert raced.inner.mount_point == elsewhere


def test_a_mount_point_that_cannot_be_made() -> None:
    """A refused mkdir is a typed error too."""
    with pytest.raises(NoPermissionError):
        ensure_mounted(FakeFs(mounted=False), Path("/sys/fs/other"), auto_mount=True)


def test_a_mount_point_without_a_parent() -> None:
    """Only one level is made: a root whose parent is absent is a wrong root, not a lack of support."""
    fs = FakeFs(mounted=False)
    with pytest.raises(NotMountedError, match="mount point does not exist") as caught:
        ensure_mounted(fs, Path("/no/such/resctrl"), auto_mount=True)
    assert type(caught.value) is NotMountedError
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(UnsupportedError, match="/proc/filesystems"):
        ensure_mounted(FakeFs(supported=False), Path("/no/such/resctrl"), auto_mount=True)
