"""The resctrl part of a kernel: groups, their directories, and what each operation answers.

Owns: what fs/resctrl does below the VFS. Must not know: system calls, locks, permissions of the caller.

The beliefs (K01 ...) are numbered in docs/explanation/kernel-semantics.md, each with its source and its test.
Where kernels differ this is Linux 6.12, mounted without options.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from resctrl.testing.counters import Counters
from resctrl.testing.ids import ClosidPool, RmidPool, StatusBuffer
from resctrl.testing.info import Hardware, Threshold, control_files, group_files, info_tree
from resctrl.testing.nodes import FileSystem, Node, Refusal, refuse
from resctrl.testing.tasks import Group, TaskTable
from resctrl.testing.tasks_text import PAGE_SIZE, SPACE, elements, kstrtoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from resctrl.model import Tid

__all__ = ["Kernel"]

_MON_GROUPS: Final = "mon_groups"


class Kernel:
    """One machine's resctrl.

    Attributes:
        hardware: What the processor offers.
        tasks: The threads.
        rmids: The pool of RMIDs; it outlives a mount.
        status: last_cmd_status; it outlives a mount.
        threshold: max_threshold_occupancy; it outlives a mount.
        counters: What it counts.
        root: The root directory while it is mounted.
        own_tid: Returns the thread that writes.
    """

    def __init__(  # noqa: PLR0913 - as many properties as the machine that it is of
        self,
        hardware: Hardware,
        limbo: float,
        clock: Callable[[], float],
        alive: Callable[[int], bool] | None,
        own_tid: Callable[[], Tid],
        *,
        lists: bool,
    ) -> None:
        self.hardware: Hardware = hardware
        self.tasks: TaskTable = TaskTable(alive)
        self.rmids: RmidPool = RmidPool(hardware.num_rmids, limbo, clock)
        self.status: StatusBuffer = StatusBuffer()
        self.threshold: Threshold = Threshold(hardware.num_rmids, self.rmids.flush)
        self.counters: Counters = Counters(hardware, lambda group: len(self._direct_threads(group)))
        self.root: Node | None = None
        self.own_tid: Callable[[], Tid] = own_tid
        self._lists = lists
        self._closids = ClosidPool(hardware.num_closids)
        self._controls: list[Group] = []

    # Mount (K80 to K84)

    def mount(self) -> Node:
        """Build the file system; EBUSY if it is mounted anywhere already."""
        self.status.clear()
        if self.root is not None:
            refuse(errno.EBUSY)
        self._closids = ClosidPool(self.hardware.num_closids)
        root = Node("", FileSystem.RESCTRL, children={}, owner_writable=False)
        default = Group(root, closid=0, rmid=0 if self.hardware.monitoring else -1)
        root.owner = default
        self._controls = [default]
        group_files(root, self._tasks_show(default), self._tasks_store(default), default_group=True)
        control_files(root, self.hardware, lambda: self.counters.online)
        info_tree(root, self.hardware, self.status.show, self.threshold)
        if self.hardware.monitoring:
            root.add_dir(_MON_GROUPS, owner_writable=False, owner=default)
            self.counters.add_to(default)
        self.root = root
        return root

    def unmount(self) -> None:
        """Destroy every group; the threads fall back to the default group, the RMIDs go into limbo (K83)."""
        for group in self._controls:
            for child in group.children:
                self._free_rmid(child)
            self._free_rmid(group)
        for tid in self.tasks.members():
            self.tasks.move(tid, None)
        if self.root is not None:
            self.root.remove()
        self.root = None
        self._controls = []

    # Directories (K10 to K37)

    def mkdir(self, parent: Node, name: str) -> None:
        """Make a group; the name is known to be free."""
        if "\n" in name:
            refuse(errno.EINVAL)
        if parent is self.root and self.hardware.allocation:
            self._make_control_group(parent, name)
        elif self.hardware.monitoring and _holds_mon_groups(parent, name):
            self._make_mon_group(parent, name)
        else:
            refuse(errno.EPERM)

    def rmdir(self, node: Node) -> None:
        """Remove a group; EPERM for every other directory."""
        group = node.owner
        if not isinstance(group, Group) or group.node is not node or node is self.root:
            refuse(errno.EPERM)
        heir = group.parent if group.parent is not None else self._controls[0]
        for tid, member in self.tasks.members().items():
            if member is group or (member is not None and member.parent is group):
                self._put(tid, heir)
        self._free_rmid(group)
        if group.parent is not None:
            group.parent.children.remove(group)
        else:
            self._closids.give_back(group.closid)
            self._controls.remove(group)
            for child in group.children:
                self._free_rmid(child)
        node.remove()

    def rename(self, node: Node, parent: Node, name: str) -> None:
        """Rename a monitoring group, or move it below another control group (K30 to K37)."""
        group = node.owner if node.is_dir else node.parent and node.parent.owner
        target = parent.owner
        # A file goes by its directory; that of a resource of info is no group, and the kernel goes on (K37).
        of_resource = not node.is_dir and isinstance(group, str)
        if not (isinstance(group, Group) or of_resource) or not isinstance(target, Group):
            refuse(errno.ENOENT)  # something directly below info
        self.status.clear()
        if not node.is_dir:
            self.status.puts("Source and destination must be directories")
            refuse(errno.EPERM)
        if not isinstance(group, Group) or group.parent is None or group.node is not node:
            self.status.puts("Source must be a MON group\n")
            refuse(errno.EPERM)
        if not _holds_mon_groups(parent, name):
            self.status.puts("Destination must be a mon_groups subdirectory\n")
            refuse(errno.EPERM)
        if name in parent.entries:
            refuse(errno.EEXIST)
        if node.parent is not None:
            del node.parent.entries[node.name]
        node.parent, node.name = parent, name
        parent.entries[name] = node
        if target is not group.parent:
            group.parent.children.remove(group)
            target.children.append(group)
            group.parent, group.closid = target, target.closid

    def _make_control_group(self, parent: Node, name: str) -> None:
        try:
            closid = self._closids.take()  # before the RMID (K12)
        except Refusal:
            self.status.puts("Out of CLOSIDs\n")
            refuse(errno.ENOSPC)
        try:
            rmid = self._take_rmid()
        except Refusal:
            self._closids.give_back(closid)
            raise
        node = parent.add_dir(name)
        group = Group(node, closid, rmid)
        node.owner = group
        group_files(node, self._tasks_show(group), self._tasks_store(group), default_group=False)
        control_files(node, self.hardware, lambda: self.counters.online)
        if self.hardware.monitoring:
            node.add_dir(_MON_GROUPS, owner=group)
            self.counters.add_to(group)
        self._controls.append(group)

    def _make_mon_group(self, parent: Node, name: str) -> None:
        control = parent.owner
        if not isinstance(control, Group):
            refuse(errno.EPERM)
        rmid = self._take_rmid()
        node = parent.add_dir(name)
        group = Group(node, control.closid, rmid, control)
        node.owner = group
        group_files(node, self._tasks_show(group), self._tasks_store(group), default_group=False)
        self.counters.add_to(group)
        control.children.append(group)

    def _take_rmid(self) -> int:
        if not self.hardware.monitoring:
            return -1
        try:
            return self.rmids.take()
        except Refusal as error:
            self.status.puts("Out of RMIDs\n")  # for ENOSPC and EBUSY alike (K04)
            refuse(error.number)

    def _free_rmid(self, group: Group) -> None:
        if group.rmid > 0:
            self.rmids.give_back(group.rmid)

    # Tasks (K40 to K56)

    def _put(self, tid: int, group: Group) -> None:
        self.tasks.move(tid, None if group is self._controls[0] else group)

    def _group_of(self, tid: int) -> Group:
        return self.tasks.group_of(tid) or self._controls[0]

    def threads_of(self, group: Group) -> list[int]:
        """Return the threads that a group's `tasks` lists: a control group's include its children's."""
        default = self._controls[0]
        members = ((tid, member or default) for tid, member in self.tasks.members().items())
        if group.parent is not None:
            return [tid for tid, member in members if member is group]
        return [tid for tid, member in members if member.control is group]

    def proc_groups(self, tid: int) -> str:
        """Return what /proc/<tid>/cpu_resctrl_groups reads (K88)."""
        if not self.tasks.lives(tid):
            refuse(errno.ESRCH)
        if self.root is None:
            return "res:\nmon:\n"
        group = self._group_of(tid)
        mon = group.node.name if group.parent is not None else ""
        return f"res:{group.control.node.name or '/'}\nmon:{mon}\n"

    def _tasks_show(self, group: Group) -> Callable[[], str]:
        def show() -> str:
            if group.parent is None and not self.hardware.allocation:
                return ""  # K54
            return "".join(f"{tid}\n" for tid in self.threads_of(group))

        return show

    def _tasks_store(self, group: Group) -> Callable[[bytes], None]:
        def store(chunk: bytes) -> None:
            if len(chunk) > PAGE_SIZE:
                refuse(errno.E2BIG)
            if not self._lists:
                self._store_one(chunk, group)
                return
            self.status.clear()
            for text, number in elements(chunk):
                if number is None:
                    self.status.printf(b"Task list parsing error pid " + text + b"\n")
                    refuse(errno.EINVAL)
                if number < 0:
                    self.status.printf(b"Invalid pid %d\n" % number)
                    refuse(errno.EINVAL)
                try:
                    self._move(number, group)
                except Refusal:
                    self.status.printf(b"Error while processing task %d\n" % number)
                    raise

        return store

    def _store_one(self, chunk: bytes, group: Group) -> None:
        """Take a write as Linux did before 6.7 (K50): one number; what is none leaves the status alone."""
        number = kstrtoint(chunk.split(b"\0", 1)[0].strip(SPACE))
        if number is None or number < 0:
            refuse(errno.EINVAL)
        self.status.clear()
        self._move(number, group)

    def _move(self, number: int, group: Group) -> None:
        tid = number or self.own_tid()
        if not self.tasks.lives(tid):
            self.status.printf(b"No task %d\n" % number)
            refuse(errno.ESRCH)
        if group.parent is not None and self._group_of(tid).control is not group.parent:
            self.status.puts("Can't move task to different control group\n")
            refuse(errno.EINVAL)
        self._put(tid, group)

    # Counters (K64 to K73)

    def move_bytes(self, tid: int, node: int, total: int, local: int) -> None:
        """Let a live thread move bytes between a cache and memory."""
        self.counters.move_bytes(self._group_of(tid), node, total, local)

    def set_online(self, domain: int, *, online: bool) -> None:
        """Let the processors at an L3 cache run, or not."""
        groups = [one for control in self._controls for one in (control, *control.children)]
        self.counters.set_online(domain, groups if self.hardware.monitoring else (), online=online)

    def _direct_threads(self, group: Group) -> list[int]:
        default = self._controls[0]
        return [tid for tid, member in self.tasks.members().items() if (member or default) is group]


def _holds_mon_groups(parent: Node, name: str) -> bool:
    """Tell whether a monitoring group may stand here; the kernel goes by the names alone (is_mon_groups)."""
    return parent.name == _MON_GROUPS and name != _MON_GROUPS
