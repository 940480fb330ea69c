"""From a container's cgroup path to its threads: forms, layouts, nesting, recycled pids, hostile paths."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin import cgroups
from nri_resctrl_plugin.cgroup_paths import parent_as_path
from nri_resctrl_plugin.cgroups import CgroupPidSource, CgroupWitness, parse_cgroups_path
from nri_resctrl_plugin.errors import CgroupError, CgroupPathError
from nri_resctrl_plugin.model import ContainerCgroup
from tests.real_cgroups import open_descriptors, own_cgroup, remove_cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ID = "3f4e" * 16
OTHER = "9a1b" * 16
POD = "kubepods-burstable-pod6f1c2b5e_0001.slice"
SLICES = f"/kubepods.slice/kubepods-burstable.slice/{POD}"
PATH = f"/kubepods/burstable/pod6f1c2b5e/{ID}"


@define
class Host:
    """A machine's cgroup and proc trees in a temporary directory."""

    base: Path
    mountinfo: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.cgroup_root.mkdir()
        self.mount("", "tmpfs")

    @property
    def cgroup_root(self) -> Path:
        """Stands for /sys/fs/cgroup."""
        return self.base / "cgroup"

    def mount(self, name: str, kind: str, options: str = "rw", root: str = "/") -> None:
        """Mount something below the cgroup root."""
        place = self.cgroup_root / name if name else self.cgroup_root
        place.mkdir(exist_ok=True)
        text = str(place).replace(" ", "\\040")
        self.mountinfo.append(f"31 23 0:28 {root} {text} rw,relatime shared:9 - {kind} {kind} {options}")
        target = self.base / "proc" / "self"
        target.mkdir(parents=True, exist_ok=True)
        (target / "mountinfo").write_text("\n".join(self.mountinfo) + "\n")

    def v2(self) -> None:
        """Mount the unified hierarchy alone."""
        self.mount("", "cgroup2")

    def hybrid(self, *controllers: str) -> None:
        """Mount v1 controllers, and the unified hierarchy beside them."""
        for name in controllers:
            self.mount(name, "cgroup", f"rw,{name}")
        self.mount("systemd", "cgroup", "rw,xattr,name=systemd")
        self.mount("unified", "cgroup2")

    def cgroup(self, path: str, tids: Iterable[int], file: str = "cgroup.threads") -> Path:
        """Make a cgroup with threads, and the empty ones above it."""
        directory = self.cgroup_root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for above in directory.relative_to(self.cgroup_root).parents:
            (self.cgroup_root / above / file).touch()
        (directory / file).write_text("".join(f"{tid}\n" for tid in tids))
        return directory

    def process(self, pid: int, *lines: str) -> None:
        """Let a process be in cgroups, as /proc/<pid>/cgroup says."""
        directory = self.base / "proc" / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def tids(self, path: str = PATH, pid: int = 0, parent: str = "") -> list[int]:
        """List a container's threads, sorted."""
        source = CgroupPidSource(self.cgroup_root, self.base / "proc")
        told = ContainerCgroup(cgroups_path=path, cgroup_parent=parent, pid=pid)
        return sorted(source.thread_ids(told))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- names ---


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        (PATH, PATH, ID),
        ("/k8s.io//./x/", "/k8s.io/x", "x"),
        (f"/kubepods/besteffort/podX/crio-{ID}", f"/kubepods/besteffort/podX/crio-{ID}", f"crio-{ID}"),
        (f"{POD}:cri-containerd:{ID}", f"{SLICES}/cri-containerd-{ID}.scope", ID),
        (f"{POD}:crio:{ID}", f"{SLICES}/crio-{ID}.scope", ID),
        (f":cri-containerd:{ID}", f"/system.slice/cri-containerd-{ID}.scope", ID),
        (f"-.slice:crio:{ID}", f"/crio-{ID}.scope", ID),
        ("a.slice:x:b.slice", "/a.slice/b.slice", "b.slice"),
        (f"/odd:name:{ID}", f"/odd:name:{ID}", f"odd:name:{ID}"),
    ],
)
def test_both_path_forms_are_understood(text: str, path: str, name: str) -> None:
    """Cgroupfs paths are taken as they are; systemd's slice:prefix:name becomes nested slices and a scope."""
    place = parse_cgroups_path(text)
    assert (place.path, place.name) == (path, name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("/", "root cgroup"),
        ("//./", "root cgroup"),
        ("/a/../b", "'..'"),
        ("/..", "'..'"),
        ("/a/b\0c", "control character"),
        ("/a/b\nc", "control character"),
        ("kubepods/x", "neither"),
        ("../x", "neither"),
        ("a:b", "neither"),
        ("a:b:c:d", "neither"),
        ("a.slice:x/../../y:z", "no '/'"),
        ("a.slice:x:../z", "no '/'"),
        ("a/b.slice:x:z", "no '/'"),
        ("a.slice:x:", "no name"),
        ("a.slice:x:..", "no name"),
        ("a:x:z", "does not end in '.slice'"),
        ("a--b.slice:x:z", "empty part"),
        ("a-.slice:x:z", "empty part"),
        (".slice:x:z", "empty part"),
        ("..-a.slice:x:z", "empty part"),
    ],
)
def test_hostile_and_malformed_paths_are_refused(host: Host, text: str, why: str) -> None:
    """Such a path is never looked at, whether or not a pid is known."""
    host.v2()
    host.cgroup("/", [1])
    host.process(77, f"0::{PATH}")
    for pid in (0, 77):
        with pytest.raises(CgroupPathError, match=why) as caught:
            host.tids(text, pid)
        assert caught.value.cgroups_path == text


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        ("/kubepods/burstable/podX", "/kubepods/burstable/podX"),
        ("/kubepods", "/kubepods/burstable/podX/"),
        ("/kubepods.slice", f"{SLICES}"),
        (f"{SLICES}", POD),
        ("-.slice:x:kubepods.slice", POD),
    ],
)
def test_the_pods_own_cgroup_and_those_above_are_refused(text: str, parent: str) -> None:
    """They hold other containers, and the pause process."""
    with pytest.raises(CgroupPathError, match="or above it"):
        parse_cgroups_path(text, parent)


@pytest.mark.parametrize(
    "parent", ["", "/kubepods/burstable/pod6f1c2b5e", POD, SLICES, "strange--.slice", "/"]
)
def test_an_honest_path_stands_beside_any_parent(parent: str) -> None:
    """A parent that means nothing to us refuses nobody."""
    assert parse_cgroups_path(PATH, parent).path == PATH


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["/", "..", ".", "a", ":", ".slice", "-", "\0"])).map("".join)
)
def test_no_path_leads_out_of_the_hierarchy(text: str) -> None:
    """Whatever is told: it is refused, or it is a path strictly below the root."""
    try:
        place = parse_cgroups_path(text)
    except CgroupPathError:
        return
    for path in (place.path, place.literal or place.path):
        assert path.startswith("/")
        parts = path.split("/")[1:]
        assert parts
        assert not {"", ".", ".."} & set(parts)
        assert os.path.normpath(f"/cgroup{path}").startswith("/cgroup/")


# --- layouts ---


def test_v2_lists_threads_of_the_whole_tree(host: Host) -> None:
    """On v2, cgroup.threads is read, here and in every nested cgroup (crun's `container`, systemd inside)."""
    host.v2()
    host.cgroup(PATH, [])
    host.cgroup(f"{PATH}/container", [11, 12])
    host.cgroup(f"{PATH}/container/deep/deeper", [13])
    host.cgroup(f"{PATH}/init.scope", [12, 14])
    (host.cgroup_root / PATH.lstrip("/") / "cgroup.procs").write_text("999\n")
    host.cgroup(f"/kubepods/burstable/pod6f1c2b5e/{OTHER}", [66])
    assert host.tids() == [11, 12, 13, 14]


def test_v1_lists_tasks(host: Host) -> None:
    """On v1 the file is `tasks`; of several hierarchies one suffices."""
    host.mount("memory", "cgroup", "rw,memory")
    host.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    host.cgroup(f"memory{PATH}", [21], "tasks")
    host.cgroup(f"memory{PATH}/nested", [22], "tasks")
    host.cgroup(f"cpu,cpuacct{PATH}", [21, 22], "tasks")
    assert host.tids() == [21, 22]


def test_hybrid_uses_whichever_hierarchy_the_runtime_joined(host: Host) -> None:
    """Where the unified hierarchy does not have the container, or has it empty, a v1 one is used."""
    host.hybrid("memory", "pids")
    host.cgroup(f"pids{PATH}", [31], "tasks")
    assert host.tids() == [31]
    host.cgroup(f"unified{PATH}", [])
    assert host.tids() == [31]
    host.cgroup(f"unified{PATH}", [32])
    assert host.tids() == [32]


def test_a_named_hierarchy_alone_is_enough(host: Host) -> None:
    """On v1, name=systemd has the container too, and so has a controller that we have no name for."""
    host.mount("systemd", "cgroup", "rw,xattr,name=systemd")
    host.mount("perf_event", "cgroup", "rw,perf_event")
    scope = f"{SLICES}/cri-containerd-{ID}.scope"
    host.cgroup(f"systemd{scope}", [41], "tasks")
    assert host.tids(f"{POD}:cri-containerd:{ID}") == [41]
    host.process(7, f"3:perf_event:/docker/x{scope}", "1:name=systemd:/")
    host.cgroup(f"perf_event/docker/x{scope}", [42], "tasks")
    assert host.tids(f"{POD}:cri-containerd:{ID}", 7) == [42]


def test_only_mounts_below_the_cgroup_root_count(tmp_path: Path) -> None:
    """A pod sees its own cgroups and the host's: the setting says which; without any it is an error."""
    elsewhere = Host(tmp_path)
    elsewhere.v2()
    source = CgroupPidSource(tmp_path / "cgroup2", tmp_path / "proc")
    with pytest.raises(CgroupError, match="no cgroup hierarchy is mounted at or below"):
        source.thread_ids(ContainerCgroup(cgroups_path=PATH))


def test_a_mount_point_with_a_space_is_read(tmp_path: Path) -> None:
    """Mountinfo escapes what would split its fields."""
    base = tmp_path / "a b"
    base.mkdir()
    host = Host(base)
    host.v2()
    host.cgroup(PATH, [5])
    assert host.tids() == [5]


def test_without_proc_there_is_a_clear_error(tmp_path: Path) -> None:
    """It says what could not be read, and why."""
    with pytest.raises(CgroupError, match=r"mountinfo.*ENOENT"):
        CgroupPidSource(tmp_path, tmp_path).thread_ids(ContainerCgroup(cgroups_path=PATH))


def test_lines_that_are_no_mounts_are_passed_over(host: Host) -> None:
    """A truncated or foreign mountinfo line breaks nothing."""
    host.mountinfo += ["", "31 23", "1 2 3:4 / /x rw - cgroup2"]
    host.v2()
    host.cgroup(PATH, [5])
    assert host.tids() == [5]


# --- the pid as a guide ---


def test_the_pid_finds_a_container_below_a_prefix(host: Host) -> None:
    """A kubelet inside a container counts paths from its own cgroup; /proc tells the whole path."""
    host.v2()
    host.cgroup(f"/docker/node{PATH}", [51])
    host.cgroup(f"/docker/node{PATH}/init.scope", [52])
    host.process(52, f"0::/docker/node{PATH}/init.scope")
    assert host.tids() == []
    assert host.tids(pid=52) == [51, 52]


def test_the_whole_container_is_walked_not_only_the_pids_cgroup(host: Host) -> None:
    """The pid may sit in a nested cgroup; its siblings belong to the container too."""
    host.v2()
    host.cgroup(PATH, [])
    host.cgroup(f"{PATH}/a", [61])
    host.cgroup(f"{PATH}/b", [62])
    host.process(61, f"0::{PATH}/a")
    assert host.tids(pid=61) == [61, 62]


def test_a_systemd_name_taken_as_a_directory_is_found(host: Host) -> None:
    """The cgroupfs driver makes a directory of slice:prefix:name; it is found with and without a pid."""
    host.hybrid("memory")
    text = f"{POD}:cri-containerd:{ID}"
    host.cgroup(f"memory/{text}", [71], "tasks")
    host.process(71, f"4:memory:/{text}", "0::/")
    assert host.tids(text, 71) == [71]
    assert host.tids(text) == [71]


@pytest.mark.parametrize(
    "elsewhere",
    [
        f"/kubepods/burstable/podY/{OTHER}",
        f"{PATH}0",
        "/kubepods/burstable/pod6f1c2b5e",
        "/",
        "/system.slice/sshd.service",
        f"/../../kubepods/{OTHER}",
        f"/x{ID}/y",
    ],
)
def test_a_recycled_pid_leads_nowhere(host: Host, elsewhere: str) -> None:
    """A pid that lives in another cgroup is ignored: the path that was told is used."""
    host.v2()
    host.cgroup(elsewhere.replace("/..", "/up"), [81])
    host.process(81, f"0::{elsewhere}")
    assert host.tids(pid=81) == []
    host.cgroup(PATH, [82])
    assert host.tids(pid=81) == [82]


def test_a_short_name_does_not_identify_a_container(host: Host) -> None:
    """`/a/main` is not any cgroup that is called `main`; it must be that path."""
    host.v2()
    host.cgroup("/other/main", [83])
    host.process(83, "0::/other/main")
    assert host.tids("/a/main", 83) == []
    host.cgroup("/a/main/sub", [84])
    host.process(84, "0::/a/main/sub")
    assert host.tids("/a/main", 84) == [84]


def test_a_dead_pid_is_no_obstacle(host: Host) -> None:
    """The path that was told is used instead."""
    host.v2()
    host.cgroup(PATH, [91])
    assert host.tids(pid=4711) == [91]


def test_a_pid_in_another_cgroup_namespace_is_no_guide(host: Host) -> None:
    """A path that begins with /.. lies outside of what the mount shows."""
    host.v2()
    host.cgroup(PATH, [91])
    host.process(91, f"0::/../..{PATH}")
    assert host.tids(pid=91) == [91]


def test_a_mount_that_shows_a_part_is_counted_from_there(host: Host) -> None:
    """Where only a part of the hierarchy is mounted, paths are cut to it, as far as they are inside."""
    host.mount("", "cgroup2", root="/kubepods/burstable")
    host.cgroup(f"/pod6f1c2b5e/{ID}", [95])
    assert host.tids() == [95]
    host.process(95, f"0::{PATH}")
    assert host.tids(pid=95) == [95]
    host.process(95, "0::/elsewhere/x")
    assert host.tids(pid=95) == [95]


def test_a_mount_from_above_our_namespace_is_understood(host: Host) -> None:
    """The host's tree, mounted into a pod with its own cgroup namespace, has a root of /../.. there."""
    host.mount("", "cgroup2", root="/../..")
    host.cgroup(PATH, [96])
    assert host.tids() == [96]
    host.process(96, f"0::/../..{PATH}")
    assert host.tids(pid=96) == [96]


# --- the walk ---


def test_a_container_that_is_gone_has_no_threads(host: Host) -> None:
    """No directory, no error."""
    host.v2()
    assert host.tids() == []


@pytest.mark.parametrize("listed", [[0], [0, 7, 0], [7, -1]])
def test_threads_outside_our_pid_namespace_are_an_error_with_its_mend(host: Host, listed: list[int]) -> None:
    """Without hostPID threads read as 0: nothing is assigned or called complete, and it is said why."""
    host.v2()
    host.cgroup(PATH, listed)
    with pytest.raises(CgroupError, match="hostPID"):
        host.tids()


def test_each_thread_is_listed_once(host: Host) -> None:
    """A thread that moves during the walk can be read twice."""
    host.v2()
    host.cgroup(PATH, [7, 8])
    host.cgroup(f"{PATH}/sub", [8, 7])
    source = CgroupPidSource(host.cgroup_root, host.base / "proc")
    assert list(source.thread_ids(ContainerCgroup(cgroups_path=PATH))) == [7, 8]


def test_symbolic_links_are_not_followed(host: Host) -> None:
    """No cgroup is a link, so it is a trick: passed over below the container, refused above it."""
    host.v2()
    outside = host.base / "outside"
    outside.mkdir()
    (outside / "cgroup.threads").write_text("666\n")
    directory = host.cgroup(PATH, [7])
    (directory / "link").symlink_to(outside)
    assert host.tids() == [7]
    (host.cgroup_root / "linked").symlink_to(outside)
    with pytest.raises(CgroupPathError, match="symbolic link"):
        host.tids("/linked/x")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_cgroups_that_vanish_during_the_walk_are_passed_over(
    host: Host, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """ENOENT before the open and ENODEV after it both mean gone; the rest is listed."""
    host.v2()
    host.cgroup(PATH, [7])
    host.cgroup(f"{PATH}/going/deep", [8])
    host.cgroup(f"{PATH}/staying", [9])
    _fail_to_scan(monkeypatch, "going", number)
    assert host.tids() == [7, 9]
    (host.cgroup_root / PATH.lstrip("/") / "staying" / "cgroup.threads").unlink()
    assert host.tids() == [7]


def test_any_other_failure_of_the_walk_is_typed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that does not mean gone is never taken for an empty container."""
    host.v2()
    host.cgroup(PATH, [7])
    host.cgroup(f"{PATH}/nested", [8])
    _fail_to_scan(monkeypatch, ID, errno.EIO)
    with pytest.raises(CgroupError, match=r"cannot list the threads at .*EIO"):
        host.tids()


def test_a_line_that_is_no_id_is_typed(host: Host) -> None:
    """A file that does not read as the kernel writes it is not guessed at."""
    host.v2()
    host.cgroup(PATH, [7])
    (host.cgroup_root / PATH.lstrip("/") / "cgroup.threads").write_text("7\nseven\n")
    with pytest.raises(CgroupError, match="no thread id"):
        host.tids()


def _fail_to_scan(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith(name):
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


# --- what is remembered, and what it costs ---


TOLD = ContainerCgroup(cgroups_path=PATH)


@pytest.fixture
def source(host: Host) -> CgroupPidSource:
    host.v2()
    return CgroupPidSource(host.cgroup_root, host.base / "proc")


def test_a_directory_is_searched_once(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a container has threads where they were found, neither /proc nor links are looked at again."""
    host.cgroup(f"/docker/node{PATH}", [51])
    host.process(51, f"0::/docker/node{PATH}")
    told = ContainerCgroup(cgroups_path=PATH, pid=51)
    assert list(source.thread_ids(told)) == [51]
    monkeypatch.setattr(source, "_candidates", None)
    assert list(source.thread_ids(told)) == [51]
    assert list(source.thread_ids(ContainerCgroup(cgroups_path=PATH, pid=0))) == [51]


def test_a_directory_is_searched_again_once_it_is_empty_or_gone(host: Host, source: CgroupPidSource) -> None:
    """A container may turn up elsewhere: where the runtime told first, nothing ran."""
    first = host.cgroup(PATH, [])
    assert list(source.thread_ids(TOLD)) == []
    host.cgroup(f"/docker/node{PATH}", [51])
    host.process(51, f"0::/docker/node{PATH}")
    found = ContainerCgroup(cgroups_path=PATH, pid=51)
    assert list(source.thread_ids(found)) == [51]
    (first / "cgroup.threads").write_text("7\n")
    shutil.rmtree(host.cgroup_root / "docker")
    assert list(source.thread_ids(found)) == [7]


def test_memory_of_directories_is_bounded(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest one is forgotten; forgetting is ignorance, so a forgotten one is not gone."""
    monkeypatch.setattr(cgroups, "MAX_REMEMBERED", 3)
    told = [ContainerCgroup(cgroups_path=f"{PATH}{number}") for number in range(4)]
    for number, each in enumerate(told):
        host.cgroup(each.cgroups_path, [number + 1])
        assert list(source.thread_ids(each)) == [number + 1]
        assert not source.is_gone(told[0])
    assert len(source._found) == 3
    shutil.rmtree(host.cgroup_root / "kubepods")
    assert [source.is_gone(each) for each in told] == [True, False, True, True]


def test_what_is_remembered_anew_pushes_nobody_out(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is searched again takes the place that it has already."""
    monkeypatch.setattr(cgroups, "MAX_REMEMBERED", 2)
    told = [ContainerCgroup(cgroups_path=f"{PATH}{number}") for number in range(2)]
    for each in told:
        host.cgroup(each.cgroups_path, [])
        source.thread_ids(each)
    source.thread_ids(told[1])
    assert len(source._found) == 2


@pytest.mark.parametrize(
    ("kind", "file", "count"), [("cgroup2", "cgroup.threads", 1), ("cgroup", "tasks", 0)]
)
def test_only_the_files_of_v2_stay_open(host: Host, kind: str, file: str, count: int) -> None:
    """Those of v1, held open, would tell for a second what they told before."""
    host.mount("x", kind, "rw" if kind == "cgroup2" else "rw,memory")
    host.cgroup(f"x{PATH}", [7], file)
    source = CgroupPidSource(host.cgroup_root, host.base / "proc")
    before = open_descriptors()
    assert [list(source.thread_ids(TOLD)) for _ in range(2)] == [[7], [7]]
    assert open_descriptors() == before + count
    source.close()
    assert open_descriptors() == before
    assert list(source.thread_ids(TOLD)) == [7]
    source.close()


def test_an_empty_container_has_one_file(host: Host, source: CgroupPidSource) -> None:
    """It is searched for again at each listing, and found where it was."""
    before = open_descriptors()
    host.cgroup(PATH, [])
    for _ in range(5):
        assert list(source.thread_ids(TOLD)) == []
    assert open_descriptors() == before + 1
    source.close()
    assert open_descriptors() == before


def test_the_room_is_that_of_the_process(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left to the process is asked for once, when a source is made."""
    monkeypatch.setattr(cgroups, "room_for_files", lambda: 1)
    small = CgroupPidSource(host.cgroup_root, host.base / "proc")
    for number in range(3):
        told = ContainerCgroup(cgroups_path=f"{PATH}{number}")
        host.cgroup(told.cgroups_path, [7])
        for each in (small, source):
            assert list(each.thread_ids(told)) == [7]
    assert (len(small._files), len(source._files)) == (1, 3)
    shutil.rmtree(host.cgroup_root / "kubepods")
    assert small.is_gone(ContainerCgroup(cgroups_path=f"{PATH}0"))
    assert len(small._files) == 0
    source.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("wanting", ["open", "scandir", "mountinfo", "/cgroup"])
def test_where_no_descriptor_is_left_those_that_stay_open_are_given_back(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch, number: int, wanting: str
) -> None:
    """Once; whatever it was that could not be opened, a container is not taken for an empty one."""
    host.cgroup(PATH, [7])
    assert list(source.thread_ids(TOLD)) == [7]
    host.cgroup(f"/docker/node/{OTHER}/nested", [8])
    host.cgroup(f"/docker/node/{OTHER}", [])
    host.process(8, f"0::/docker/node/{OTHER}")
    if wanting == "mountinfo":
        source._hierarchies = ()
    tried: list[object] = []

    def refuse(real: Callable[..., object], suffix: str) -> Callable[..., object]:
        def call(path: object, *rest: object, **how: object) -> object:
            if str(path).endswith(suffix) and len(tried) <= 1:
                tried.append(path)
                if len(source._files) or len(tried) == 1:
                    raise OSError(number, os.strerror(number), str(path))
            return real(path, *rest, **how)

        return call

    match wanting:
        case "open":
            monkeypatch.setattr(os, "open", refuse(os.open, "nested/cgroup.threads"))
        case "scandir":
            monkeypatch.setattr(os, "scandir", refuse(os.scandir, OTHER))
        case _:
            monkeypatch.setattr(Path, "read_text", refuse(Path.read_text, wanting))
    told = ContainerCgroup(cgroups_path=f"/system/{OTHER}", pid=8)
    assert list(source.thread_ids(told)) == [8]
    assert len(tried) == 2
    source.close()


def test_without_anything_to_give_back_it_is_an_error(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is any other failure tried again."""
    host.cgroup(PATH, [7])

    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CgroupError, match="EMFILE"):
        source.thread_ids(TOLD)


def test_several_threads_may_share_a_source(host: Host, source: CgroupPidSource) -> None:
    """Two plugins with a worker each: no list is wrong, and nothing stays open that nobody knows of."""
    before = open_descriptors()
    told = [ContainerCgroup(cgroups_path=f"{PATH}{number}") for number in range(20)]
    for number, each in enumerate(told):
        host.cgroup(each.cgroups_path, [number + 1])

    def work() -> int:
        wrong = 0
        for turn in range(50):
            for number, each in enumerate(told):
                wrong += list(source.thread_ids(each)) != [number + 1]
            if turn % 10 == 0:
                source.close()
        return wrong

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert [each.result() for each in [pool.submit(work) for _ in range(3)]] == [0] * 3
    finally:
        sys.setswitchinterval(interval)
    source.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("call", ["thread_ids", "is_gone", "close"])
def test_each_call_has_the_source_to_itself(host: Host, source: CgroupPidSource, call: str) -> None:
    """Each closes files, or remembers places, that another would be reading."""
    host.cgroup(PATH, [7])
    calls: dict[str, Callable[[], object]] = {
        "thread_ids": lambda: source.thread_ids(TOLD),
        "is_gone": lambda: source.is_gone(TOLD),
        "close": source.close,
    }
    with ThreadPoolExecutor(1) as pool:
        with source._lock:
            other = pool.submit(calls[call])
            with pytest.raises(TimeoutError):
                other.result(0.05)
        other.result(10)
    source.close()


# --- what is gone ---


@pytest.mark.parametrize("tids", [[7], []])
def test_gone_is_what_was_listed_and_is_nowhere_now(
    host: Host, source: CgroupPidSource, tids: list[int]
) -> None:
    """A listing is a sight, even an empty one; the directory that vanishes after it is gone, and stays so."""
    directory = host.cgroup(PATH, tids)
    source.thread_ids(TOLD)
    assert not source.is_gone(TOLD)
    shutil.rmtree(directory)
    assert source.is_gone(TOLD)
    assert source.is_gone(TOLD)
    assert list(source.thread_ids(TOLD)) == []
    host.cgroup(PATH, [])
    assert not source.is_gone(TOLD)


def test_a_look_is_a_sight_too(host: Host, source: CgroupPidSource) -> None:
    """The cgroup of a sandbox is never listed: the first question sees it, the later ones miss it."""
    directory = host.cgroup(PATH, [])
    assert not source.is_gone(TOLD)
    assert not source.is_gone(TOLD)
    shutil.rmtree(directory)
    assert source.is_gone(TOLD)


def test_what_was_never_seen_is_not_gone(host: Host, source: CgroupPidSource) -> None:
    """Ignorance is no evidence, however often it is asked."""
    host.cgroup("/", [])
    assert [source.is_gone(TOLD) for _ in range(3)] == [False] * 3
    source.thread_ids(TOLD)
    assert not source.is_gone(TOLD)


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "a.slice:x:", "/linked/x"])
def test_a_path_that_is_refused_is_not_gone(host: Host, source: CgroupPidSource, path: str) -> None:
    """The witness says no where a listing would raise."""
    (host.cgroup_root / "linked").symlink_to(host.base)
    assert not source.is_gone(ContainerCgroup(cgroups_path=path))


def test_a_cgroup_that_stands_elsewhere_is_not_gone(host: Host, source: CgroupPidSource) -> None:
    """It is looked for in every place where it could be."""
    directory = host.cgroup(PATH, [7])
    source.thread_ids(TOLD)
    shutil.rmtree(directory)
    host.cgroup(f"/docker/node{PATH}", [7])
    host.process(7, f"0::/docker/node{PATH}")
    assert not source.is_gone(ContainerCgroup(cgroups_path=PATH, pid=7))
    shutil.rmtree(host.cgroup_root / "docker")
    assert source.is_gone(ContainerCgroup(cgroups_path=PATH, pid=7))


def test_an_unmounted_hierarchy_shows_nothing_gone(host: Host, source: CgroupPidSource) -> None:
    """Where the host's cgroups are unmounted, an empty directory is left; no pod ended with that."""
    host.cgroup(PATH, [7])
    source.thread_ids(TOLD)
    for entry in host.cgroup_root.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    assert not source.is_gone(TOLD)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ELOOP])
def test_a_cgroup_that_cannot_be_looked_at_is_not_gone(
    host: Host, source: CgroupPidSource, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only ENOENT and ENODEV mean gone."""
    host.cgroup(PATH, [7])
    source.thread_ids(TOLD)

    real = os.stat

    def refuse(path: str, **how: bool) -> object:
        if path.endswith(ID):
            raise OSError(number, os.strerror(number), path)
        return real(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    assert not source.is_gone(TOLD)


def test_without_proc_nothing_is_gone(tmp_path: Path) -> None:
    """The witness answers even where nothing can be found out."""
    assert not CgroupPidSource(tmp_path, tmp_path).is_gone(TOLD)


def test_the_source_is_a_witness() -> None:
    """The plugin finds the optional protocol by looking."""
    assert isinstance(CgroupPidSource(), CgroupWitness)


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("/kubepods/burstable/podX", "/kubepods/burstable/podX"),
        (POD, SLICES),
        ("kubepods.slice", "/kubepods.slice"),
        (SLICES, SLICES),
    ],
)
def test_a_pods_parent_is_a_path_too(parent: str, path: str) -> None:
    """Both ways of naming a pod's cgroup lead to its directory."""
    assert parse_cgroups_path(parent_as_path(parent)).path == path


# --- the machine that the test runs on ---


@pytest.mark.parametrize("threads", [3, 1500])
def test_a_real_process_is_found_with_all_its_threads(request: pytest.FixtureRequest, threads: int) -> None:
    """On a real cgroup tree a multi-threaded process in a cgroup of its own is listed with every thread."""
    directory = own_cgroup(request)
    source = CgroupPidSource()
    name = f"/{'/'.join(directory.parts[-2:])}"
    code = (
        "import threading,sys\n"
        "go = threading.Event(); threading.stack_size(65536)\n"
        f"for _ in range({threads}): threading.Thread(target=go.wait, daemon=True).start()\n"
        "print('up', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            try:
                (directory / "cgroup.procs").write_text(str(process.pid))
            except OSError as error:
                pytest.skip(f"may not move a process here: {error}")
            expected = sorted(int(tid) for tid in os.listdir(f"/proc/{process.pid}/task"))  # noqa: PTH208 - names only
            assert len(expected) == threads + 1
            for pid in (0, process.pid):
                found = source.thread_ids(ContainerCgroup(cgroups_path=name, pid=pid))
                assert sorted(found) == expected
        finally:
            process.kill()
            process.wait()
    remove_cgroup(directory)
    assert list(source.thread_ids(ContainerCgroup(cgroups_path=name))) == []


def test_reading_leaves_a_tree_as_it_is(host: Host) -> None:
    """The source opens nothing for writing: a read-only tree is enough."""
    host.v2()
    directory = host.cgroup(PATH, [7])
    for path in (directory / "cgroup.threads", directory):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert host.tids() == [7]
    directory.chmod(stat.S_IRWXU)
