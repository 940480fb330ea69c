"""What the fidelity machine does to both sides, and in which order: a generator with a seed.

Owns: the vocabulary of operations, and how often each comes. Must not know: what any of them answers.

Rules:
    1. An operation names tasks and readers by number, never by what they are on one side, so that a part of
       a sequence can be played again.
    2. The generator knows nothing of the state; its names are few, so that operations meet.
    3. What the fake says it does not model is not asked: see the last section of
       docs/explanation/kernel-semantics.md.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ELSEWHERE", "ROOT", "Generator", "Kind", "Operation"]

ROOT: Final = Path("/sys/fs/resctrl")
ELSEWHERE: Final = Path("/fidelity")
"""Another directory to mount at; it exists on both sides."""

_PAGE: Final = 4096
_LINE: Final = 120
_CONTROLS: Final = ("g", "h", "i")
_GROUPS: Final = ("a", "b", "c", "d")
_ODD_NAMES: Final = (
    "x\ny", "mon_groups", "info", "mon_data", "tasks", "cpus", "mon_L3_00", "a b", " a", "a,b", "a:b", ".a",
    "...", "%s", "\\", "\t", "\u00e4\u20ac", "\udcff", "L" * 255, "L" * 256, "L" * 3000, "L" * 4090, "..",
    "A", "0",
)  # fmt: skip
_DIRECTORIES: Final = (
    ROOT, ROOT / "info", ROOT / "info/L3_MON", ROOT / "mon_groups", ROOT / "mon_data",
    "", "mon_data", "mon_data/mon_L3_00", "mon_groups", "tasks", "absent", "..",
    Path("/sys/fs"), Path("/proc"), ELSEWHERE, ELSEWHERE / "mon_groups", "another",
)  # fmt: skip
"""Directories; those that are texts are a group's, and the last is a group elsewhere."""
_GROUP_FILES: Final = ("cpus", "cpus_list", "mode", "schemata", "size")
_COUNTERS: Final = ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes")
_INFO: Final = (
    "L3/bit_usage", "L3/cbm_mask", "L3/min_cbm_bits", "L3/num_closids", "L3/shareable_bits",
    "L3/sparse_masks", "MB/bandwidth_gran", "MB/delay_linear", "MB/min_bandwidth", "MB/num_closids",
    "MB/thread_throttle_mode", "L3_MON/mon_features", "L3_MON/num_rmids", "L3_MON/max_threshold_occupancy",
)  # fmt: skip
_LISTS: Final = (
    "{t0}", "{t0}\n", "{t0},{t1}", "{t0},{t1},{t2}\n", " {t0} , {t1} ", "{t0},", "{t0},{dead},{t1}", "{dead}",
    "{x0}", "{o0}", "+{t0}", "{x0},{o1},+{t2}", "0,{t0}", "0", "1", "2", "1,{t0},2",
    ",{t0}", "{t0},,{t1}", "{t0}\n{t1}", "{t0} {t1}", "{t0},\n{t1}", "\n{t0}", "{t0}\0,{t1}",
    "\0", "", "\n", ",", " ", "abc", "{t0},abc,{t1}", "-1", "-0", "+-1", "{t0},-5", "08", "0x", "0xg", "1e3",
    "\u00a0{t0}\u00a0", "\udca0{t0}\udca0", "2147483647", "2147483648", "-2147483648", "99999999999",
    "4194304", "4194305", "%s%d", "x" * 100, "x" * 600, "x" * _PAGE, "x" * (_PAGE + 1), "{fit}", "{over}",
    "{t0}" + " " * 200 + ",{t1}",
)  # fmt: skip
_THRESHOLDS: Final = (
    "0", "65536", "70000\n", "65535", "0x10000", "abc", "", "-1", "16777217", "4294967295", "4294967296",
    "99999999999999999999", "65536\0x", "+65536", "65536 ",
)  # fmt: skip


class Kind(Enum):
    """An operation's kind."""

    CREATE_DIR = "create_dir"
    REMOVE_DIR = "remove_dir"
    RENAME = "rename"
    EXISTS = "exists"
    READ_TEXT = "read_text"
    READ_CHILD_DIRS = "read_child_dirs"
    CAN_OPEN_FOR_WRITE = "can_open_for_write"
    WRITE_ALL = "write_all"
    WRITE_ON = "write_all, going on"
    OPEN_READER = "open_reader"
    READER_READ = "reader.read"
    READER_CLOSE = "reader.close"
    MOUNT = "mount_resctrl"
    UNMOUNT = "unmount"
    REMOUNT = "remount"
    DETECT = "detect_support"
    THREAD = "start a thread"
    FORK = "fork"
    END = "end"
    OBSERVE = "observe"
    ASSIGN = "assign_tasks"
    TASK_GROUPS = "task_groups"
    MOVE = "move_group"
    INVENTORY = "list_groups, capacity"
    SWEEP = "cleanup_all"


@frozen
class Operation:
    """One operation.

    Attributes:
        kind: What to do.
        path: What to do it to.
        target: Where to, for a rename; for a move the control group's name; for a sweep what is kept.
        chunks: What to write, or which threads are meant: texts in which {t0} is a task, {x0} and {o0} the
            same in hexadecimal and octal, {dead} one that ended, {fit} and {over} a list of a page and of one
            byte more.
        number: Which task or reader; modulo how many there are.
    """

    kind: Kind
    path: Path = ROOT
    target: Path = ROOT
    chunks: tuple[str, ...] = ()
    number: int = 0

    def __str__(self) -> str:
        name: str = self.kind.value
        match self.kind:
            case Kind.RENAME | Kind.MOVE:
                return f"{name}({_brief(self.path)}, {_brief(self.target)})"
            case Kind.SWEEP:
                return f"{name}({_brief(self.path)}, {_brief(self.target)}) {self.number}"
            case Kind.WRITE_ALL | Kind.WRITE_ON | Kind.ASSIGN | Kind.TASK_GROUPS:
                chunks = ", ".join(_brief(chunk) for chunk in self.chunks)
                return f"{name}({_brief(self.path)}, [{chunks}]) {self.number}"
            case Kind.THREAD | Kind.FORK | Kind.END | Kind.READER_READ | Kind.READER_CLOSE | Kind.REMOUNT:
                return f"{name} {self.number}"
            case Kind.UNMOUNT | Kind.DETECT | Kind.OBSERVE | Kind.INVENTORY:
                return name
            case _:
                return f"{name}({_brief(self.path)})"


def _brief(text: object) -> str:
    """Return a text for people, the middle of a long one left out."""
    whole = repr(str(text))
    return whole if len(whole) <= _LINE else f"{whole[: _LINE // 2]}[... {len(whole)} ...]{whole[-20:]}"


class Generator:
    """Makes operations.

    Args:
        seed: The same seed makes the same operations.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - it must be repeatable
        self._makers: tuple[tuple[int, Callable[[], Iterator[Operation]]], ...] = (
            (26, self._create),
            (10, self._remove),
            (8, self._rename),
            (3, self._exists),
            (12, self._read),
            (5, self._list),
            (4, self._can_write),
            (18, self._write),
            (4, self._reader),
            (6, self._task),
            (2, self._observe),
            (6, self._library),
            (1, self._mounts),
        )

    def sequence(self, length: int) -> list[Operation]:
        """Return so many operations."""
        weights = [weight for weight, _ in self._makers]
        operations: list[Operation] = []
        while len(operations) < length:
            ((_, maker),) = self._random.choices(self._makers, weights)
            operations += maker()
        return operations[:length]

    # Places

    def _one(self, *choices: str) -> str:
        return choices[self._random.randrange(len(choices))]

    def _mostly(self, likely: Callable[[], Path], percent: int = 75) -> Path:
        return likely() if self._random.randrange(100) < percent else self._odd_place()

    def _number(self) -> int:
        return self._random.randrange(60)

    def _control(self) -> Path:
        return ROOT if self._random.randrange(4) else ROOT / self._one(*_CONTROLS)

    def _mon_group(self) -> Path:
        return self._control() / "mon_groups" / self._one(*_GROUPS)

    def _group(self) -> Path:
        return self._mon_group() if self._random.randrange(3) else self._control()

    def _new_group(self) -> Path:
        return self._mon_group() if self._random.randrange(4) else ROOT / self._one(*_CONTROLS)

    def _tasks_file(self) -> Path:
        return self._group() / "tasks"

    def _odd_directory(self) -> Path:
        group, name = self._group(), self._one(*_GROUPS)
        directory = self._random.choice(_DIRECTORIES)
        if isinstance(directory, Path):
            return directory
        return ELSEWHERE / "mon_groups" / name if directory == "another" else group / directory

    def _odd_place(self) -> Path:
        directory = self._odd_directory()
        if not self._random.randrange(3):
            return directory
        if not directory.is_relative_to(ROOT):  # other file systems have rules of their own about names
            return directory / self._one(*_GROUPS)
        return directory / self._one(*_ODD_NAMES, *_GROUPS)

    def _file(self) -> Path:
        what = self._random.randrange(10)
        if what < 4:
            return self._tasks_file()
        if what < 6:
            return ROOT / "info/last_cmd_status"
        if what < 7:
            return self._group() / "mon_data/mon_L3_00" / self._one(*_COUNTERS)
        if what < 8:
            return ROOT / "info" / self._one(*_INFO)
        return self._group() / self._one(*_GROUP_FILES)

    # Operations

    def _create(self) -> Iterator[Operation]:
        yield Operation(Kind.CREATE_DIR, self._changeable(self._mostly(self._new_group, 80)))

    def _remove(self) -> Iterator[Operation]:
        yield Operation(Kind.REMOVE_DIR, self._changeable(self._mostly(self._new_group)))

    def _rename(self) -> Iterator[Operation]:
        source, target = (
            self._file()
            if not self._random.randrange(12)
            else self._changeable(self._mostly(self._new_group))
            for _ in range(2)
        )
        if not source.is_relative_to(ROOT):  # the fake renames nothing outside of resctrl
            source = self._mon_group()
        if source.parent.parent == ROOT / "info":  # it ruins the kernel's memory (K37)
            source = ROOT / "info/last_cmd_status"
        yield Operation(Kind.RENAME, source, target)

    def _changeable(self, path: Path) -> Path:
        """Keep ordinary directories from being made, which other file systems answer for."""
        return self._mon_group() if ELSEWHERE in {path, path.parent} else path

    def _exists(self) -> Iterator[Operation]:
        yield Operation(Kind.EXISTS, self._mostly(self._group, 40))

    def _read(self) -> Iterator[Operation]:
        yield Operation(Kind.READ_TEXT, self._mostly(self._file, 85))

    def _list(self) -> Iterator[Operation]:
        yield Operation(Kind.READ_CHILD_DIRS, self._mostly(lambda: self._group().parent, 50))

    def _can_write(self) -> Iterator[Operation]:
        yield Operation(Kind.CAN_OPEN_FOR_WRITE, self._mostly(self._file))

    def _write(self) -> Iterator[Operation]:
        what = self._random.randrange(20)
        if what == 0:
            threshold = ROOT / "info/L3_MON/max_threshold_occupancy"
            yield Operation(Kind.WRITE_ALL, threshold, chunks=(self._one(*_THRESHOLDS),))
            return
        path = self._tasks_file()
        if what == 1:
            path = self._random.choice(
                (ROOT / "info/last_cmd_status", self._odd_directory(), self._mon_group() / "size")
            )
        elif what < 4:
            path = self._odd_directory() / "tasks"
        count = 1 if self._random.randrange(4) else self._random.randrange(4)
        chunks = tuple(self._one(*_LISTS) if self._random.randrange(3) else "{t0}" for _ in range(count))
        kind = Kind.WRITE_ALL if self._random.randrange(3) else Kind.WRITE_ON
        yield Operation(kind, path, chunks=chunks, number=self._number())
        if not self._random.randrange(3):
            yield Operation(Kind.READ_TEXT, ROOT / "info/last_cmd_status")

    def _reader(self) -> Iterator[Operation]:
        what = self._random.randrange(5)
        if what < 2:
            yield Operation(Kind.OPEN_READER, self._mostly(self._file, 85))
        else:
            kind = Kind.READER_READ if what < 4 else Kind.READER_CLOSE
            yield Operation(kind, number=self._number())

    def _task(self) -> Iterator[Operation]:
        kind = self._random.choice((Kind.THREAD, Kind.FORK, Kind.END))
        yield Operation(kind, number=self._number())

    def _observe(self) -> Iterator[Operation]:
        yield Operation(self._random.choice((Kind.OBSERVE, Kind.OBSERVE, Kind.DETECT)))

    def _library(self) -> Iterator[Operation]:
        """Call the library."""
        what = self._random.randrange(10)
        chunks = tuple(
            self._one("{t0}", "{t1}", "{t2}", "{dead}") for _ in range(self._random.randrange(1, 5))
        )
        if what < 5:
            yield Operation(Kind.ASSIGN, self._mon_group(), chunks=chunks, number=self._number())
        elif what < 6:
            yield Operation(Kind.TASK_GROUPS, chunks=chunks, number=self._number())
        elif what < 8:
            yield Operation(Kind.MOVE, self._mon_group(), Path(self._one("", *_CONTROLS)))
        elif what < 9:
            yield Operation(Kind.INVENTORY)
        else:
            name, kept = (self._one(*_GROUPS, *_CONTROLS) for _ in range(2))
            yield Operation(Kind.SWEEP, ROOT / name, ROOT / kept, number=self._number())

    def _mounts(self) -> Iterator[Operation]:
        """Change the mount, do a little, and mostly change it back."""
        what = self._random.randrange(4)
        if what == 0:
            yield Operation(Kind.REMOUNT, number=1)
            for _ in range(3):
                yield from self._few()
            yield Operation(Kind.REMOUNT, number=0)
            return
        if what == 1:
            yield Operation(
                Kind.MOUNT, self._random.choice((ROOT, ELSEWHERE, ROOT / "mon_groups", ROOT / "tasks"))
            )
            return
        for _ in range(self._random.randrange(6)):
            yield Operation(Kind.READER_CLOSE, number=0)
        yield Operation(Kind.UNMOUNT)
        yield from self._few()
        yield Operation(Kind.MOUNT, self._random.choice((ROOT, ROOT, ELSEWHERE, ROOT / "absent")))
        yield from self._few()
        if self._random.randrange(2):
            yield Operation(Kind.UNMOUNT)
        yield Operation(Kind.MOUNT, ROOT)

    def _few(self) -> Iterator[Operation]:
        for _ in range(self._random.randrange(5)):
            maker = self._random.choice(
                (
                    self._create,
                    self._remove,
                    self._rename,
                    self._read,
                    self._list,
                    self._write,
                    self._observe,
                    self._exists,
                )
            )
            yield from maker()
