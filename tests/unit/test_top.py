"""What `top` makes of the groups: rows, states, orders, tables, records."""

from __future__ import annotations

import errno
import json
import math
from typing import TYPE_CHECKING

import pytest

from nri_resctrl_plugin.cli.terminal import columns_of, cut, printable
from nri_resctrl_plugin.top import GroupKind, Row, View, Watch, sort_rows
from nri_resctrl_plugin.top.record import record
from nri_resctrl_plugin.top.table import heading, table
from resctrl import FsProvider, NotMountedError, Resctrl, Tid
from resctrl.testing import FakeFs, FaultyFs, RecordingFs
from tests.unit.fakes import MON, ROOT

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


class Node:
    """A machine that is looked at, and whose second look is a second after the first."""

    def __init__(self, fs: FsProvider | None = None, *, only_ours: bool = False) -> None:
        self.kernel = FakeFs(num_rmids=16, limbo=1.0, domains=(0, 1))
        self.resctrl: Resctrl[FsProvider] = Resctrl.with_provider(fs if fs is not None else self.kernel)
        self.now = 0
        self.watch = Watch(self.resctrl, only_ours=only_ours, clock=lambda: self.now)

    def view(self) -> View:
        """Look, a second after the last time."""
        self.now += 1_000_000_000
        return self.watch.look()

    def look(self) -> dict[str, Row]:
        """Return the rows by name."""
        return {row.name: row for row in self.view().rows}


@pytest.fixture
def node() -> Node:
    """A machine without groups."""
    return Node()


def names(rows: list[Row]) -> list[str]:
    """Return the names, in order."""
    return [row.name for row in rows]


class TestWatch:
    """Which groups are looked at, and what is seen of each."""

    def test_all_groups_are_seen(self, node: Node) -> None:
        """The default group, control groups, and monitoring groups of anybody below any of them."""
        node.resctrl.create_group("a")
        node.kernel.create_dir(MON / "foreign")
        node.kernel.create_dir(ROOT / "gold")
        node.resctrl.create_group("b", "gold")
        rows = node.look()
        assert {name: (row.kind, row.ours) for name, row in rows.items()} == {
            "(default)": (GroupKind.DEFAULT, False),
            "pod_a": (GroupKind.MONITOR, True),
            "foreign": (GroupKind.MONITOR, False),
            "gold": (GroupKind.CONTROL, False),
            "gold/pod_b": (GroupKind.MONITOR, True),
        }

    def test_only_ours(self) -> None:
        """`only_ours` leaves the others out, and the RMIDs that they have are counted all the same."""
        node = Node(only_ours=True)
        node.resctrl.create_group("a")
        node.kernel.create_dir(MON / "foreign")
        view = node.view()
        assert [row.name for row in view.rows] == ["pod_a"]
        assert (view.in_use, view.num_rmids) == (3, 16)

    def test_numbers(self, node: Node) -> None:
        """Occupancy is a sum over the domains; rates are of what moved between two looks."""
        group = node.resctrl.create_group("a")
        tid = node.kernel.spawn()
        node.resctrl.assign_tasks(group, [tid])
        node.kernel.set_reading(group, "llc_occupancy", 3 * MIB, domain=0)
        node.kernel.set_reading(group, "llc_occupancy", 1 * MIB, domain=1)
        first = node.look()["pod_a"]
        assert (first.state, first.threads, first.per_second("mbm_total_bytes")) == ("new", 1, None)
        node.kernel.move_bytes(tid, 8_000_000, local=2_000_000, domain=1)
        second = node.look()["pod_a"]
        assert second.total("llc_occupancy").amount == 4 * MIB
        assert second.state == "ok"
        total, local = second.per_second("mbm_total_bytes"), second.per_second("mbm_local_bytes")
        assert (total, local) == (8_000_000.0, 2_000_000.0)

    def test_groups_come_and_go(self, node: Node) -> None:
        """A group that is made is seen at the next look, one that is gone is not."""
        group = node.resctrl.create_group("a")
        assert "pod_a" in node.look()
        node.resctrl.delete_group(group)
        node.resctrl.create_group("b")
        rows = node.look()
        assert set(node.watch._sampler.groups) == {row.path for row in rows.values()}, (
            "it is not asked for again"
        )
        assert "pod_a" not in rows
        assert rows["pod_b"].state == "new"

    def test_a_group_that_goes_while_it_is_looked_at(self) -> None:
        """It has no row; nobody has to be told that a pod ended."""
        kernel = FakeFs(num_rmids=16, limbo=1.0)
        faulty = FaultyFs(kernel)
        node = Node(faulty)
        node.resctrl.create_group("a")
        faulty.before("identity", kernel.remove_dir, path=MON / "pod_a")
        assert set(node.look()) == {"(default)"}

    def test_two_looks_at_one_moment(self, node: Node) -> None:
        """Without time between them there is no rate."""
        node.resctrl.create_group("a")
        node.look()
        (row,) = [row for row in node.watch.look().rows if row.ours]
        assert (row.state, row.rates) == ("new", {})

    def test_a_group_made_anew(self, node: Node) -> None:
        """A group made anew under its name has no rate, and never a negative one."""
        group = node.resctrl.create_group("a")
        tid = node.kernel.spawn()
        node.resctrl.assign_tasks(group, [tid])
        node.kernel.move_bytes(tid, 10**9)
        node.look()
        node.resctrl.delete_group(group)
        node.resctrl.create_group("a")
        row = node.look()["pod_a"]
        assert (row.state, row.per_second("mbm_total_bytes")) == ("reset", None)
        assert node.look()["pod_a"].state == "ok"

    @pytest.mark.parametrize(
        ("word", "domains", "state"),
        [
            ("Unavailable", (0,), "Unavailable 1/6"),
            ("Error", (0, 1), "Error 2/6"),
            ("Unassigned", (1,), "Unassigned 1/6"),
        ],
    )
    def test_a_counter_that_does_not_tell(
        self, node: Node, word: str, domains: tuple[int, ...], state: str
    ) -> None:
        """It is told how many counters say what; the others are shown."""
        group = node.resctrl.create_group("a")
        node.look()
        for domain in domains:
            node.kernel.set_reading(group, "llc_occupancy", word, domain=domain)
        row = node.look()["pod_a"]
        assert row.state == state
        assert row.total("llc_occupancy").complete is False
        assert row.per_second("mbm_total_bytes") == 0.0

    def test_no_counter_tells(self, node: Node) -> None:
        """Where all say the same, that word alone is the state."""
        node.resctrl.create_group("a")
        node.kernel.fail_counters("Error")
        assert node.look()["pod_a"].state == "Error"

    def test_a_group_that_cannot_be_read(self) -> None:
        """Its row says why, and the others are shown."""
        kernel = FakeFs(num_rmids=16, limbo=1.0)
        faulty = FaultyFs(kernel)
        node = Node(faulty)
        node.resctrl.create_group("a")
        node.resctrl.create_group("b")
        faulty.fail("read_child_dirs", errno.EACCES, times=math.inf, path=MON / "pod_a" / "mon_data")
        rows = node.look()
        assert (rows["pod_a"].state, rows["pod_a"].reading) == ("NoPermission", None)
        assert rows["pod_b"].state == "new"

    def test_unmounted_meanwhile(self, node: Node) -> None:
        """That ends it, with an error that says so."""
        node.look()
        node.watch.close()
        node.kernel.unmount()
        with pytest.raises(NotMountedError):
            Watch(node.resctrl).look()

    def test_closing_lets_resctrl_be_unmounted(self, node: Node) -> None:
        """Open counters keep resctrl mounted until the watch is closed."""
        with node.watch:
            node.look()
            with pytest.raises(OSError, match="busy"):
                node.kernel.unmount()
        node.kernel.unmount()


class TestThreads:
    """Counting threads is rationed."""

    def test_all_are_counted_when_it_is_cheap(self, node: Node) -> None:
        """Each group's threads are counted at the first look."""
        for number in range(5):
            group = node.resctrl.create_group(str(number))
            node.resctrl.assign_tasks(group, [node.kernel.spawn() for _ in range(number)])
        rows = node.look()
        assert [rows[f"pod_{number}"].threads for number in range(5)] == [0, 1, 2, 3, 4]

    def test_in_turn_when_it_is_dear(self) -> None:
        """Where one count takes all the time there is, each look counts one group, each group in its turn."""
        kernel = RecordingFs(FakeFs(num_rmids=16, limbo=1.0))
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(kernel)
        seconds = iter(range(1000))
        watch = Watch(resctrl, interval=1.0, clock=lambda: next(seconds) * 1_000_000_000)
        for name in "abc":
            resctrl.create_group(name)
        counted = []
        for _ in range(5):
            view = watch.look()
            counted.append({row.name for row in view.rows if row.threads is not None})
        assert [len(each) for each in counted] == [1, 2, 3, 4, 4]

    def test_a_group_that_is_gone_is_forgotten(self, node: Node) -> None:
        """No count outlives its group."""
        group = node.resctrl.create_group("a")
        node.look()
        node.resctrl.delete_group(group)
        node.look()
        assert group not in node.watch._threads.counts


class TestOrder:
    """Sorting."""

    def rows(self, node: Node) -> list[Row]:
        """Return rows whose numbers are all different, and one that has none."""
        for number, name in enumerate(("b", "c", "a")):
            group = node.resctrl.create_group(name)
            tids = [node.kernel.spawn() for _ in range(number + 1)]
            node.resctrl.assign_tasks(group, tids)
            for domain in (0, 1):
                node.kernel.set_reading(group, "llc_occupancy", (3 - number) * MIB, domain=domain)
        node.resctrl.create_group("silent")
        node.look()
        for number, name in enumerate(("b", "c", "a")):
            (tid, *_) = sorted(node.resctrl.list_group_tasks(MON / f"pod_{name}"))
            node.kernel.move_bytes(Tid(tid), (number + 1) * 10**7, local=(4 - number) * 10**6)
        node.kernel.set_reading(MON / "pod_silent", "llc_occupancy", "Unavailable", domain=0)
        node.kernel.set_reading(MON / "pod_silent", "llc_occupancy", "Unavailable", domain=1)
        return [row for row in node.view().rows if row.kind is GroupKind.MONITOR]

    @pytest.mark.parametrize(
        ("key", "order"),
        [
            ("name", ["pod_a", "pod_b", "pod_c", "pod_silent"]),
            ("occupancy", ["pod_b", "pod_c", "pod_a", "pod_silent"]),
            ("total", ["pod_a", "pod_c", "pod_b", "pod_silent"]),
            ("local", ["pod_b", "pod_c", "pod_a", "pod_silent"]),
            ("threads", ["pod_a", "pod_c", "pod_b", "pod_silent"]),
        ],
    )
    def test_keys(self, node: Node, key: str, order: list[str]) -> None:
        """Numbers begin with the largest, names with a; reversed, what has no number is last all the same."""
        rows = self.rows(node)
        assert names(sort_rows(rows, key)) == order
        reverse = [*order[-2::-1], order[-1]] if key == "occupancy" else order[::-1]
        assert names(sort_rows(rows, key, reverse=True)) == reverse

    def test_equal_numbers_are_sorted_by_name(self, node: Node) -> None:
        """Rows do not jump about while nothing changes."""
        for name in "cab":
            node.resctrl.create_group(name)
        rows = list(node.view().rows)
        node.kernel.create_dir(MON / "!first")
        assert names(sort_rows(node.view().rows, "name"))[:2] == ["(default)", "!first"]
        assert names(sort_rows(rows, "total")) == ["(default)", "pod_a", "pod_b", "pod_c"]


def lines(view: View, width: int = 120) -> list[str]:
    """Return the table as text."""
    return [line.text for line in table(view, view.rows, width, printable, columns_of)]


class TestTable:
    """Columns, widths, units."""

    def test_a_table(self, node: Node) -> None:
        """Columns are aligned, units are those of the head, ours bear a star."""
        group = node.resctrl.create_group("web")
        node.kernel.create_dir(MON / "foreign")
        node.kernel.set_reading(group, "llc_occupancy", 12 * MIB + MIB // 2, domain=0)
        head, *rows = lines(node.view())
        assert head.split("  ")[0] == "GROUP"
        assert head.split() == [
            "GROUP",
            "KIND",
            "LLC",
            "MiB",
            "TOTAL",
            "MB/s",
            "LOCAL",
            "MB/s",
            "THREADS",
            "STATE",
        ]
        (web,) = [row for row in rows if row.startswith("pod_web")]
        assert web.split() == ["pod_web", "monitor*", "12.5", "-", "-", "0", "new"]
        assert web.index("12.5") + 4 == head.index("LLC MiB") + 7, "numbers end below their title"
        (foreign,) = [row for row in rows if row.startswith("foreign")]
        assert foreign.split()[1] == "monitor"

    def test_a_sum_that_is_not_complete(self, node: Node) -> None:
        """It is marked as the lower bound that it is."""
        group = node.resctrl.create_group("a")
        node.kernel.set_reading(group, "llc_occupancy", 2 * MIB, domain=0)
        node.kernel.set_reading(group, "llc_occupancy", "Unavailable", domain=1)
        found = table(view := node.view(), view.rows, 120, printable, columns_of)
        (line,) = [each for each in found if each.text.startswith("pod_a")]
        assert ">2.0" in line.text
        assert "Unavailable 1/6" in line.text
        assert line.is_troubled
        assert [each.is_troubled for each in found].count(True) == 1

    def test_a_machine_with_other_counters(self) -> None:
        """Events that are not there have no column; energy has one where it is counted."""
        kernel = FakeFs(num_rmids=8, limbo=0.0, packages=(0,))
        head = lines(Watch(Resctrl[FsProvider].with_provider(kernel)).look())[0]
        assert "LLC" not in head
        assert "WATTS" in head

    @pytest.mark.parametrize("width", [60, 80, 100, 200])
    def test_narrow_screens(self, node: Node, width: int) -> None:
        """Names are cut with a tilde before numbers are; no line is longer than the screen."""
        node.resctrl.create_group("a-name-that-is-much-too-long-for-any-of-these-screens")
        found = lines(node.view(), width)
        assert all(len(line) <= width for line in found), found
        (line,) = [each for each in found if each.startswith("pod_a")]
        assert ("~" in line) is (width < 200)
        assert all("STATE" in each or "new" in each for each in found)
        assert ("LOCAL" in found[0], "THREADS" in found[0]) == (width > 80, width > 60)

    def test_names_are_any_bytes(self, node: Node) -> None:
        """Escape sequences are not passed on, wide letters take two columns, invalid UTF-8 is a mark."""
        for name in ("\x1b[31mred", "網路", "\udcff"):
            node.kernel.create_dir(MON / name)
        found = lines(node.view())
        assert not any("\x1b" in line for line in found)
        assert any(line.startswith("?[31mred") for line in found)
        assert any(line.startswith("?  ") for line in found)
        ends = {columns_of(line[: line.rindex("new")]) for line in found[1:]}
        assert len(ends) == 1, "the states stand below each other"

    def test_heading(self, node: Node) -> None:
        """How many groups, how many ours, how many RMIDs are left."""
        node.resctrl.create_group("a")
        view = node.view()
        assert heading(view) == "2 groups, 1 ours (*), 14 of 16 RMIDs free"
        assert heading(View(view.rows, None, 2, unheld=1)).endswith(
            "1 groups read file by file: too few descriptors (ulimit -n)"
        )

    @pytest.mark.parametrize(
        ("text", "width", "expected"),
        [("abc", 3, "abc"), ("abcd", 3, "ab~"), ("網路路", 4, "網~"), ("", 3, "")],
    )
    def test_cut(self, text: str, width: int, expected: str) -> None:
        """What does not fit ends in a tilde, and never takes a column too many."""
        assert cut(text, width) == expected

    def test_printable_in_an_encoding(self) -> None:
        """What the stream cannot write is a mark, so that writing never fails."""
        assert printable("a網\x00b", "ascii") == "a??b"


class TestRecord:
    """JSON."""

    def test_a_record(self, node: Node) -> None:
        """It holds what the table shows, and for each domain what it told."""
        group = node.resctrl.create_group("a")
        node.look()
        node.kernel.set_reading(group, "llc_occupancy", 5, domain=0)
        node.kernel.set_reading(group, "llc_occupancy", "Unavailable", domain=1)
        node.kernel.set_reading(group, "mbm_local_bytes", "Strange", domain=1)
        view = node.view()
        rows = [row for row in view.rows if row.name == "pod_a"]
        told = json.loads(json.dumps(record(view, rows, 7, 1_700_000_000.25)))
        assert (told["schema"], told["seq"], told["ts"]) == (1, 7, "2023-11-14T22:13:20.250000Z")
        assert (told["num_rmids"], told["rmids_in_use"]) == (16, 2)
        (one,) = told["groups"]
        assert (one["path"], one["name"], one["kind"], one["ours"]) == (str(group), "pod_a", "monitor", True)
        assert (one["threads"], one["state"]) == (0, "Unavailable 2/6")
        assert one["totals"]["llc_occupancy"] == {"amount": 5, "complete": False}
        assert one["rates"]["mbm_total_bytes"]["per_second"] == 0.0
        assert one["rates"]["mbm_total_bytes"]["reset"] is None
        domains = {(each["domain"], each["event"]): each for each in one["domains"]}
        assert len(domains) == 6
        assert domains["mon_L3_00", "llc_occupancy"]["amount"] == 5
        assert domains["mon_L3_01", "llc_occupancy"]["state"] == "Unavailable"
        assert domains["mon_L3_01", "mbm_local_bytes"] == {
            "domain": "mon_L3_01", "parent": None, "event": "mbm_local_bytes",
            "state": "ReadError", "text": "Strange",
        }  # fmt: skip
        assert domains["mon_L3_00", "mbm_total_bytes"]["per_second"] == 0.0

    def test_a_reset(self, node: Node) -> None:
        """Has no number, and its reason."""
        group = node.resctrl.create_group("a")
        node.look()
        node.resctrl.delete_group(group)
        node.resctrl.create_group("a")
        view = node.view()
        told = record(view, [row for row in view.rows if row.ours], 1, 0.0)
        (one,) = json.loads(json.dumps(told))["groups"]
        assert one["rates"]["mbm_total_bytes"]["reset"] == "recreated"
        assert one["rates"]["mbm_total_bytes"]["per_second"] is None
        assert {each.get("reset") for each in one["domains"]} == {None, "recreated"}

    def test_a_group_that_was_not_read(self, tmp_path: Path) -> None:
        """Is told with its state alone."""
        row = Row(tmp_path, "x", GroupKind.MONITOR, ours=False, threads=None, state="NoPermission")
        (one,) = json.loads(json.dumps(record(View((row,), None, 1), [row], 1, 0.0)))["groups"]
        assert one == {"path": str(tmp_path), "name": "x", "kind": "monitor", "ours": False, "threads": None,
                       "state": "NoPermission"}  # fmt: skip
