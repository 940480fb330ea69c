"""Monitoring groups: one per pod uid, made, filled, listed, deleted and swept.

Owns: what to do about each answer of the kernel. Must not know: containers, NRI,
who lists the threads.

Rules:
    1. Groups stand in `<root>/mon_groups/`, or below a control group in `<root>/<control group>/mon_groups/`,
       named `<prefix><uid>`. Two different uids never share a name.
    2. Nothing is deleted, moved, filled or swept that does not carry the prefix.
    3. Creating and deleting are idempotent.
    4. Threads are written in lists, through one descriptor; what one that cannot be moved costs the others is
       in `resctrl.assigning`.
    5. Reading `tasks` walks every thread of the machine under the one lock of resctrl, so a reconcile does it
       once (`resctrl.reconciling`).
    6. The `tasks` of a control group is never written to: that would change the class of a thread.

It is longer than a module here should be, because half of it is the docstrings of the one class that every
user reads; the work is in the modules that it imports.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from resctrl.assigning import Assigner, checked
from resctrl.errors import (
    GroupNotFoundError,
    Operation,
    ResctrlError,
    UnsupportedError,
    translate,
)
from resctrl.fs import FsProvider, RealFs
from resctrl.inventory import capacity, list_groups, task_groups, tasks_of
from resctrl.model import (
    AssignmentResult,
    Capacity,
    CleanupReport,
    ReconcileResult,
    ResctrlConfig,
    ResctrlGroup,
    SupportInfo,
    TaskGroups,
    Tid,
)
from resctrl.mount import detect_support, ensure_mounted, not_mounted
from resctrl.names import MON_GROUPS, control_dir, group_name, require_ours
from resctrl.passes import Passes
from resctrl.reconciling import reconcile
from resctrl.status import last_status
from resctrl.sweeping import sweep

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from resctrl.info import ResctrlInfo
    from resctrl.model import TidSource
    from resctrl.monitoring import GroupReading

__all__ = ["Resctrl"]

P = TypeVar("P", bound=FsProvider)

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
# What the VFS answers where there are no mon_groups, or where the caller may not.
_VFS_REFUSED: Final = frozenset({errno.ENOENT, errno.EPERM, errno.EACCES})
# mkdir never clears last_cmd_status, and only these come with a sentence: else it tells of something older.
_TOLD: Final = frozenset({errno.ENOSPC, errno.EBUSY})
# A kernel before 6.5 refuses every rename without a word, and leaves what is older (rdtgroup_rename).
_OF_A_MOVE: Final = ("Source ", "Destination ", "Cannot move ")
_NO_CONTROL_HINT: Final = "whoever manages the control groups has removed it"


class Resctrl(Generic[P]):
    """The resctrl of this machine, as far as monitoring groups per pod go.

    All it remembers is whether the kernel takes lists of threads, so one instance may serve several threads
    if its provider does.

    Attributes:
        config: Where resctrl is and which groups are ours.
        fs: The provider that everything goes through.
    """

    __slots__ = ("_assigner", "_config", "_fs")

    _assigner: Assigner
    _config: ResctrlConfig
    _fs: P

    def __init__(self: Resctrl[RealFs], config: ResctrlConfig | None = None) -> None:
        self._begin(RealFs(), config)

    @classmethod
    def with_provider(cls, fs: P, config: ResctrlConfig | None = None) -> Resctrl[P]:
        """Return a `Resctrl` over another provider than the real file system."""
        resctrl: Resctrl[P] = cls.__new__(cls)
        resctrl._begin(fs, config)
        return resctrl

    @property
    def config(self) -> ResctrlConfig:
        """Where resctrl is and which groups are ours."""
        return self._config

    @property
    def fs(self) -> P:
        """The provider that everything goes through."""
        return self._fs

    # The mount

    def detect_support(self) -> SupportInfo:
        """Find out what this machine offers; nothing is changed.

        Raises:
            ResctrlError: /proc cannot be read.
        """
        return detect_support(self._fs, self._config.root)

    def ensure_mounted(self, *, auto_mount: bool) -> None:
        """Make sure that resctrl is mounted at the configured root; see `resctrl.mount.ensure_mounted`.

        Raises:
            NotMountedError: It is not mounted there, and may not or cannot be.
            UnsupportedError: This kernel or processor has no resctrl.
            NoPermissionError: The caller may not mount.
        """
        ensure_mounted(self._fs, self._config.root, auto_mount=auto_mount)

    # Groups

    def group_path(self, pod_uid: str, control_group: str = "") -> Path:
        """Return where the group of a pod stands, whether or not it exists.

        A uid of up to 63 letters, digits, `_` and `-` is used as it is; anything else, and anything that
        begins with `h-`, is replaced by `h-` and the first 32 hex digits of its SHA-256.

        Args:
            pod_uid: The pod.
            control_group: Name of the control group that it stands below; "" is the default group.

        Raises:
            InvalidGroupError: No control group can have that name.
        """
        return self._place(control_group, Operation.CREATE_GROUP) / group_name(
            self._config.group_prefix, pod_uid
        )

    def create_group(self, pod_uid: str, control_group: str = "") -> Path:
        """Make the group of a pod, or find it made.

        Args:
            pod_uid: The pod.
            control_group: Name of the control group to make it below, which is that of its threads; "" is the
                default group.

        Returns:
            Its directory.

        Raises:
            InvalidGroupError: No control group can have that name.
            GroupNotFoundError: There is no such control group.
            CapacityError: No RMID is free (ENOSPC).
            RmidsBusyError: No RMID is free, but one will be (EBUSY: limbo).
            NotMountedError: resctrl is not mounted at the root.
            UnsupportedError: It is, but this machine cannot monitor.
            NoPermissionError: EACCES or EPERM.
            ResctrlIOError: Anything else.
        """
        path = self.group_path(pod_uid, control_group)
        try:
            self._fs.create_dir(path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in _VFS_REFUSED:
                self._explain_absence(Operation.CREATE_GROUP, path, error)
            if error.errno in _GONE and control_group:
                raise _no_control_group(Operation.CREATE_GROUP, path, error) from error
            told = error.errno in _TOLD
            with translate(Operation.CREATE_GROUP, path, self._kernel_status if told else None):
                raise
        return path

    def move_group(self, group: Path, control_group: str) -> Path:
        """Move a group of ours below another control group, by rename(2) (Linux 6.5).

        It keeps its RMID and its counters. Its threads come along, so they change their class: move a group
        when its threads are in the other control group already, or are to be.

        Args:
            group: A group of ours.
            control_group: Name of the control group to move it below; "" is the default group.

        Returns:
            Where it stands now. If it stood there already, nothing has changed.

        Raises:
            InvalidGroupError: `group` is no group of ours, or no control group can have that name.
            GroupExistsError: The control group has a group of that name.
            GroupNotFoundError: The group or the control group is gone; `path` tells which.
            NotMountedError: resctrl is not mounted at the root.
            NoPermissionError: EACCES or EPERM; the latter also from a kernel that cannot move it, whose
                sentence is kept.
            ResctrlIOError: Anything else.
        """
        require_ours(self._config, Operation.MOVE_GROUP, group)
        target = self._place(control_group, Operation.MOVE_GROUP) / group.name
        try:
            self._fs.rename(group, target)
        except OSError as error:
            if error.errno in _VFS_REFUSED:
                self._explain_absence(Operation.MOVE_GROUP, group, error)
            if error.errno in _GONE and not self._is_there(target.parent):
                raise _no_control_group(Operation.MOVE_GROUP, target, error) from error
            place = target if error.errno == errno.EEXIST else group
            told = error.errno == errno.EPERM
            with translate(Operation.MOVE_GROUP, place, self._move_status if told else None):
                raise
        return target

    def list_groups(self) -> list[ResctrlGroup]:
        """Return every group there is: control groups and monitoring groups, ours and those of others.

        The default group is not listed. A group that vanishes meanwhile is left out.

        Raises:
            NotMountedError: resctrl is not mounted at the root.
            ResctrlError: A directory cannot be listed.
        """
        return list_groups(self._fs, self._config)

    def capacity(self) -> Capacity:
        """Return how many groups this machine has room for, and how many there are.

        Raises:
            NotMountedError: resctrl is not mounted at the root.
            UnsupportedError: This machine cannot monitor.
            ResctrlError: A directory or info/ cannot be read.
        """
        return capacity(self._fs, self._config)

    def info(self) -> ResctrlInfo:
        """Return what resctrl tells of itself: features, numbers of RMIDs and CLOSIDs, how it is mounted.

        What a kernel does not have is None or empty; files that are new to this library are kept as text.

        Raises:
            NotMountedError: resctrl is not mounted at the root.
            ResctrlError: info/ cannot be listed.
        """
        from resctrl.info import read_info  # noqa: PLC0415 - who never asks is spared the module

        return read_info(self._fs, self._config)

    def read_group(self, group: Path) -> GroupReading:
        """Read every counter of a group, ours or not: a monitoring group, a control group, or the root.

        Each counter tells a value or why it has none; one that cannot be read costs the others nothing. A
        control group's counters include those of its monitoring groups. Whoever reads many groups again and
        again takes a `Sampler`.

        Raises:
            InvalidGroupError: No group can stand there.
            GroupNotFoundError: There is no such group.
            NotMountedError: resctrl is not mounted at the root.
            UnsupportedError: This machine cannot monitor.
            ResctrlError: The group cannot be listed.
        """
        from resctrl.counters import read_group  # noqa: PLC0415 - as above

        return read_group(self._fs, self._config, group)

    def delete_group(self, group: Path) -> None:
        """Remove a group of ours, or find it gone. Its threads fall back to the parent control group.

        Args:
            group: A prefixed child of a `mon_groups` below the root.

        Raises:
            InvalidGroupError: `group` is anything else.
            GroupNotFoundError: The kernel says that it is gone, and it is there: it came back meanwhile.
            ResctrlError: The kernel refuses.
        """
        require_ours(self._config, Operation.DELETE_GROUP, group)
        with translate(Operation.DELETE_GROUP, group):
            try:
                self._fs.remove_dir(group)
            except OSError as error:
                if error.errno not in _GONE or self._is_there(group):
                    raise

    def list_group_tasks(self, group: Path) -> list[Tid]:
        """Return the threads of a group, as far as this process's pid namespace shows them.

        Raises:
            GroupNotFoundError: There is no such group.
            UnexpectedContentError: `tasks` holds something other than numbers.
        """
        return tasks_of(self._fs, group)

    def task_groups(self, tid: Tid) -> TaskGroups | None:
        """Return the groups that a thread is in; None if it is gone.

        Raises:
            InvalidTidError: The id is 0, negative or too large.
            UnsupportedError: The thread lives, but this kernel does not tell (before Linux 5.6, or without
                CONFIG_PROC_CPU_RESCTRL).
            NotMountedError: resctrl is not mounted.
            UnexpectedContentError: /proc/<tid>/cpu_resctrl_groups reads otherwise than proc(5) says.
            ResctrlError: It cannot be read.
        """
        (tid,) = checked(Operation.READ_TASK, self._config.root, [tid])
        return task_groups(self._fs, self._config, tid)

    def assign_tasks(self, group: Path, tids: Iterable[Tid], *, try_all: bool = True) -> AssignmentResult:
        """Put threads into a group. A thread that is in it already counts as assigned.

        A thread that is gone (ESRCH) counts as missing. One that the kernel refuses (EINVAL: it is in
        another control group; EPERM) does not stop the others; the first such refusal is raised at the end.
        Whatever concerns the group itself ends the call at once.

        Args:
            group: A group of ours.
            tids: Thread ids; an id that is listed twice counts once.
            try_all: False: give up at the first thread that is refused with none left before it, and let
                `refused` name the rest after it, untried. True: only those that are in the same control group
                as one that was refused, where there are many and the kernel tells.

        Raises:
            InvalidTidError: An id is 0, negative or too large; nothing was written.
            InvalidGroupError: `group` is no group of ours.
            TaskNotInParentError: A thread is in another control group (`partial` tells about the others,
                `refused` which ones are).
            GroupNotFoundError: The group is gone (`partial` tells how far it came).
            ResctrlError: Anything else, with `partial`.
        """
        require_ours(self._config, Operation.ASSIGN_TASKS, group)
        outcome = self._assigner.assign(group, checked(Operation.ASSIGN_TASKS, group, tids), try_all=try_all)
        if outcome.refusal is not None:
            outcome.refusal.partial = outcome.result
            outcome.refusal.refused = tuple(outcome.refused)
            raise outcome.refusal
        return outcome.result

    def reconcile_group(
        self, group: Path, source: TidSource, max_passes: int = 10, *, try_all: bool = True
    ) -> ReconcileResult:
        """Put all threads that a source lists into a group, until it lists nothing new.

        Threads can be born while the others are being moved, so the source is asked again after each pass.
        It is always asked once more after the last write that took a thread: what it lists then and what is
        not in the group is missing, so a source that never comes to rest is never reported complete. A thread
        that was gone in the last pass and is listed nevertheless is written once more: its id may be in use
        again. Gone twice is dead.

        Args:
            group: A group of ours.
            source: Lists the live threads, afresh at each call. What it raises is passed on.
            max_passes: How often to list and write, at least 1.
            try_all: As for `assign_tasks`; each thread counts as tried then.

        Raises:
            ValueError: `max_passes` is less than 1.
            EmptyPidSetError: The source lists nothing.
            ResctrlError: As `assign_tasks` says; a refused thread does not stop the other threads or passes.
                Whatever fails, `partial` tells what was done before, and `refused` who was refused.
        """
        if max_passes < 1:
            raise ValueError(f"max_passes must be at least 1, not {max_passes}")
        passes = Passes()
        try:
            require_ours(self._config, Operation.ASSIGN_TASKS, group)
            return reconcile(self._assigner, group, source, max_passes, passes, try_all=try_all)
        except ResctrlError as error:
            passes.explain(error)
            raise

    def cleanup_all(self, *, below_control_groups: bool = False, keep: Collection[str] = ()) -> CleanupReport:
        """Remove every group with our prefix from the root and from the root's `mon_groups`.

        Control groups at the root are included; what stands in a control group's own `mon_groups` is not
        looked at (but goes with a prefixed control group). The kernel's own directories are never touched.

        Args:
            below_control_groups: Sweep the `mon_groups` of the control groups that stay as well.
            keep: Names of groups, prefix included, that stay wherever they stand; a control group that holds
                one of them stays with it.

        Raises:
            InvalidGroupError: The prefix is empty, so every group would be ours.
            NotMountedError: resctrl is not mounted at the root.
            ResctrlError: A directory cannot be listed.
        """
        return sweep(self._fs, self._config, below_control_groups=below_control_groups, keep=keep)

    # Within

    def _begin(self, fs: P, config: ResctrlConfig | None) -> None:
        self._config = config if config is not None else ResctrlConfig()
        self._fs = fs
        self._assigner = Assigner(fs, self._config)

    def _place(self, control_group: str, operation: Operation) -> Path:
        return control_dir(self._config.root, control_group, operation) / MON_GROUPS

    def _is_there(self, path: Path) -> bool:
        """Tell whether something is there, or may be: it cannot always be known."""
        try:
            return self._fs.exists(path)
        except OSError:
            return True

    def _explain_absence(self, operation: Operation, path: Path, error: OSError) -> None:
        """Raise what is really wrong where a refusal means that there are no `mon_groups` at all."""
        try:
            support = self.detect_support()
        except ResctrlError:
            return  # no /proc to tell by: the errno has to do
        if not support.mounted:
            absent = not_mounted(support, operation, self._config.root, error.errno)
            raise absent from error
        if not support.monitoring:
            detail = "this machine cannot monitor (there is no info/L3_MON)"
            raise UnsupportedError(operation, path, errno=error.errno, detail=detail) from error

    def _kernel_status(self) -> str | None:
        return last_status(self._fs, self._config.root).sentence

    def _move_status(self) -> str | None:
        sentence = self._kernel_status()
        return sentence if sentence is not None and sentence.startswith(_OF_A_MOVE) else None


def _no_control_group(operation: Operation, path: Path, error: OSError) -> GroupNotFoundError:
    """Return the error for a group that was to stand below a control group that is gone."""
    control = path.parent.parent
    return GroupNotFoundError(
        operation, control, errno=error.errno, detail="there is no such control group", hint=_NO_CONTROL_HINT
    )
