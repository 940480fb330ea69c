"""Monitoring groups: one per pod uid, made, filled, listed, deleted and swept.

Owns: what to do about each answer of the kernel. Must not know: containers, NRI,
who lists the threads.

Rules:
    1. Groups stand in `<root>/mon_groups/`, named `<prefix><uid>`. Two different uids never share a name.
    2. Nothing is deleted, filled or swept that does not carry the prefix.
    3. Creating and deleting are idempotent.
    4. Every thread gets a write(2) of its own, through one descriptor: the kernel stops a comma list at the
       first failure and does not say where, while a thread that died on the way is the normal case.
    5. Reading `tasks` walks every thread of the machine under the one lock of resctrl, so a reconcile does it
       once.
    6. The kernel's own sentence is read right after the failure: the next write of anybody clears it.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from resctrl.errors import (
    EmptyPidSetError,
    InvalidGroupError,
    InvalidTidError,
    Operation,
    ResctrlError,
    UnexpectedContentError,
    UnsupportedError,
    translate,
)
from resctrl.fs import FsProvider, RealFs, WriteError
from resctrl.model import AssignmentResult, CleanupReport, ReconcileResult, ResctrlConfig, SupportInfo, Tid
from resctrl.mount import detect_support, ensure_mounted, is_mounted, not_mounted
from resctrl.names import KERNEL_DIRS, MON_GROUPS, group_name, require_ours
from resctrl.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from resctrl.model import TidSource

__all__ = ["Resctrl"]

P = TypeVar("P", bound=FsProvider)

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
_TASK_REFUSED: Final = frozenset({errno.EINVAL, errno.EPERM})
# What the VFS answers to a mkdir where there are no mon_groups, or where the caller may not.
_VFS_REFUSED: Final = frozenset({errno.ENOENT, errno.EPERM, errno.EACCES})
# mkdir never clears last_cmd_status, and only these come with a sentence: else it tells of something older.
_TOLD: Final = frozenset({errno.ENOSPC, errno.EBUSY})
_LARGEST_TID: Final = 2**31 - 1
_WHICH_TASK: Final = "Error while processing task "


class Resctrl(Generic[P]):
    """The resctrl of this machine, as far as monitoring groups per pod go.

    It keeps no state of its own, so one instance may serve several threads if its provider does.

    Attributes:
        config: Where resctrl is and which groups are ours.
        fs: The provider that everything goes through.
    """

    __slots__ = ("_config", "_fs")

    _config: ResctrlConfig
    _fs: P

    def __init__(self: Resctrl[RealFs], config: ResctrlConfig | None = None) -> None:
        self._config = config if config is not None else ResctrlConfig()
        self._fs = RealFs()

    @classmethod
    def with_provider(cls, fs: P, config: ResctrlConfig | None = None) -> Resctrl[P]:
        """Return a `Resctrl` over another provider than the real file system."""
        resctrl: Resctrl[P] = cls.__new__(cls)
        resctrl._config = config if config is not None else ResctrlConfig()
        resctrl._fs = fs
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

    def group_path(self, pod_uid: str) -> Path:
        """Return where the group of a pod stands, whether or not it exists.

        A uid of up to 63 letters, digits, `_` and `-` is used as it is; anything else, and anything that
        begins with `h-`, is replaced by `h-` and the first 32 hex digits of its SHA-256.
        """
        return self._config.root / MON_GROUPS / group_name(self._config.group_prefix, pod_uid)

    def create_group(self, pod_uid: str) -> Path:
        """Make the group of a pod, or find it made.

        Returns:
            Its directory.

        Raises:
            CapacityError: No RMID is free (ENOSPC).
            RmidsBusyError: No RMID is free, but one will be (EBUSY: limbo).
            NotMountedError: resctrl is not mounted at the root.
            UnsupportedError: It is, but this machine cannot monitor.
            NoPermissionError: EACCES or EPERM.
            ResctrlIOError: Anything else.
        """
        path = self.group_path(pod_uid)
        try:
            self._fs.create_dir(path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in _VFS_REFUSED:
                self._explain_absence(path, error)
            told = error.errno in _TOLD
            with translate(Operation.CREATE_GROUP, path, self._kernel_status if told else None):
                raise
        return path

    def delete_group(self, group: Path) -> None:
        """Remove a group of ours, or find it gone. Its threads fall back to the parent control group.

        Args:
            group: A prefixed child of a `mon_groups` below the root.

        Raises:
            InvalidGroupError: `group` is anything else.
            ResctrlError: The kernel refuses.
        """
        require_ours(self._config, Operation.DELETE_GROUP, group)
        with translate(Operation.DELETE_GROUP, group):
            try:
                self._fs.remove_dir(group)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def list_group_tasks(self, group: Path) -> list[Tid]:
        """Return the threads of a group, as far as this process's pid namespace shows them.

        Raises:
            GroupNotFoundError: There is no such group.
            UnexpectedContentError: `tasks` holds something other than numbers.
        """
        path = group / "tasks"
        with translate(Operation.LIST_TASKS, group):
            text = self._fs.read_text(path)
        try:
            return [Tid(int(line)) for line in text.splitlines()]
        except ValueError as error:
            raise UnexpectedContentError(Operation.LIST_TASKS, path, text) from error

    def assign_tasks(self, group: Path, tids: Iterable[Tid]) -> AssignmentResult:
        """Put threads into a group. A thread that is in it already counts as assigned.

        A thread that is gone (ESRCH) counts as missing. One that the kernel refuses (EINVAL: it is in
        another control group; EPERM) does not stop the others; the first such refusal is raised at the end.
        Whatever concerns the group itself ends the call at once.

        Args:
            group: A group of ours.
            tids: Thread ids; an id that is listed twice counts once.

        Raises:
            InvalidTidError: An id is 0, negative or too large; nothing was written.
            InvalidGroupError: `group` is no group of ours.
            TaskNotInParentError: A thread is in another control group (`partial` tells about the others).
            GroupNotFoundError: The group is gone (`partial` tells how far it came).
            ResctrlError: Anything else, with `partial`.
        """
        require_ours(self._config, Operation.ASSIGN_TASKS, group)
        assigned, missing, refusal = self._assign(group, self._checked(group, tids))
        result = AssignmentResult(assigned=len(assigned), missing=len(missing))
        if refusal is not None:
            refusal.partial = result
            raise refusal
        return result

    def reconcile_group(self, group: Path, source: TidSource, max_passes: int = 10) -> ReconcileResult:
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

        Raises:
            ValueError: `max_passes` is less than 1.
            EmptyPidSetError: The source lists nothing.
            ResctrlError: As `assign_tasks` says; a refused thread does not stop the other threads or passes.
                Whatever fails, `partial` tells what was done before.
        """
        if max_passes < 1:
            raise ValueError(f"max_passes must be at least 1, not {max_passes}")
        passes = Passes()
        try:
            require_ours(self._config, Operation.ASSIGN_TASKS, group)
            return self._reconcile(group, source, max_passes, passes)
        except ResctrlError as error:
            error.partial = passes.partial()
            raise

    def cleanup_all(self) -> CleanupReport:
        """Remove every group with our prefix from the root and from the root's `mon_groups`.

        Control groups at the root are included; what stands in a control group's own `mon_groups` is not
        looked at (but goes with a prefixed control group). The kernel's own directories are never touched.

        Raises:
            InvalidGroupError: The prefix is empty, so every group would be ours.
            NotMountedError: resctrl is not mounted at the root.
            ResctrlError: A directory cannot be listed.
        """
        root = self._config.root
        if not self._config.group_prefix:
            raise InvalidGroupError(Operation.SWEEP, root, detail="the group prefix is empty")
        if not is_mounted(self._fs, root):
            raise not_mounted(self.detect_support(), Operation.SWEEP, root)
        removed = failures = races = foreign = 0
        for group in self._sweep_candidates():
            if not group.name.startswith(self._config.group_prefix):
                foreign += 1
                continue
            try:
                self._fs.remove_dir(group)
            except OSError as error:
                if error.errno in _GONE:
                    races += 1
                else:
                    failures += 1
            else:
                removed += 1
        return CleanupReport(
            removed=removed, removal_failures=failures, removal_race=races, non_prefix_groups=foreign
        )

    # Within

    def _sweep_candidates(self) -> list[Path]:
        root = self._config.root
        with translate(Operation.SWEEP, root):
            groups = [root / name for name in self._fs.read_child_dirs(root) if name not in KERNEL_DIRS]
        mon_groups = root / MON_GROUPS
        # A machine that cannot monitor has none.
        with translate(Operation.SWEEP, mon_groups), suppress(FileNotFoundError):
            groups += [mon_groups / name for name in self._fs.read_child_dirs(mon_groups)]
        return groups

    def _checked(self, group: Path, tids: Iterable[Tid]) -> list[Tid]:
        """Return the ids without repetition, in order, or refuse them all."""
        unique = list(dict.fromkeys(tids))
        for tid in unique:
            if not 0 < tid <= _LARGEST_TID:
                raise InvalidTidError(Operation.ASSIGN_TASKS, group, detail=f"{tid} is no thread id")
        return unique

    def _reconcile(self, group: Path, source: TidSource, max_passes: int, passes: Passes) -> ReconcileResult:
        """Do what `reconcile_group` says; the account tells how far it came."""
        while True:
            live = self._listed(group, source)
            new = passes.untried(live)
            if not new or passes.count == max_passes:
                break
            self._write(group, passes, new)
            passes.count += 1
        again = passes.doubtful(live)
        if again:
            self._write(group, passes, again)
        if not passes.assigned.isdisjoint(again):
            live = self._listed(group, source)
        inside = set(self.list_group_tasks(group))
        missing = passes.missing(live, inside, lambda: self._checked(group, source()))
        if passes.refusal is not None:
            raise passes.refusal
        return ReconcileResult(assigned=len(passes.assigned), missing=missing, passes=passes.count)

    def _listed(self, group: Path, source: TidSource) -> list[Tid]:
        """Ask the source, which has to list something."""
        live = self._checked(group, source())
        if not live:
            raise EmptyPidSetError(Operation.ASSIGN_TASKS, group)
        return live

    def _write(self, group: Path, passes: Passes, tids: Sequence[Tid]) -> None:
        """Write threads and take the outcome into the account."""
        try:
            assigned, gone, refusal = self._assign(group, tids)
        except ResctrlError as error:
            passes.broken_off = error.partial
            raise
        passes.record(tids, assigned, gone, refusal)

    def _assign(self, group: Path, tids: Sequence[Tid]) -> tuple[set[Tid], set[Tid], ResctrlError | None]:
        """Write threads one by one; return those taken, those gone, and the first refusal of a thread."""
        assigned: set[Tid] = set()
        missing: set[Tid] = set()
        refusal: ResctrlError | None = None
        rest = tids
        while rest:
            try:
                self._fs.write_all(group / "tasks", (b"%d\n" % tid for tid in rest))
            except WriteError as error:
                assigned.update(rest[: error.written])
                stopper, rest = rest[error.written], rest[error.written + 1 :]
                if error.errno == errno.ESRCH:
                    missing.add(stopper)
                    continue
                typed = self._typed_refusal(group, error)
                if error.errno not in _TASK_REFUSED:
                    typed.partial = AssignmentResult(assigned=len(assigned), missing=len(missing))
                    raise typed from error
                refusal = refusal if refusal is not None else typed
            else:
                assigned.update(rest)
                rest = ()
        return assigned, missing, refusal

    def _typed_refusal(self, group: Path, error: WriteError) -> ResctrlError:
        """Build the typed error now, while last_cmd_status still tells of this failure."""
        try:
            with translate(Operation.ASSIGN_TASKS, group, self._kernel_status):
                raise error
        except ResctrlError as typed:
            return typed

    def _explain_absence(self, path: Path, error: OSError) -> None:
        """Raise what is really wrong where a refused mkdir means that there are no `mon_groups` at all."""
        try:
            support = self.detect_support()
        except ResctrlError:
            return  # no /proc to tell by: the errno has to do
        if not support.mounted:
            absent = not_mounted(support, Operation.CREATE_GROUP, self._config.root, error.errno)
            raise absent from error
        if not support.monitoring:
            detail = "this machine cannot monitor (there is no info/L3_MON)"
            raise UnsupportedError(Operation.CREATE_GROUP, path, errno=error.errno, detail=detail) from error

    def _kernel_status(self) -> str | None:
        """Return what the kernel says about the last failure, or None where it says nothing.

        That is the newest line of info/last_cmd_status; a tasks write adds one more that only repeats which
        task it was, so there the line before it is meant.
        """
        try:
            lines = (
                self._fs.read_text(self._config.root / "info" / "last_cmd_status").rstrip("\n").split("\n")
            )
        except OSError:
            return None
        while len(lines) > 1 and lines[-1].startswith(_WHICH_TASK):
            lines.pop()
        return lines[-1] if lines[-1] not in {"", "ok"} else None
