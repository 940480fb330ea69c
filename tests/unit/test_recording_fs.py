"""RecordingFs: what it remembers, and that it changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

from resctrl import FsProvider
from resctrl.testing import Call, FakeFs, RecordingFs
from tests.unit.fakes import MON, ROOT, answer


def test_every_operation_is_passed_on_and_counted() -> None:
    """Each method of a provider reaches the inner one, with its answer, and leaves one record."""
    inner = FakeFs()
    fs = RecordingFs(inner)
    assert isinstance(fs, FsProvider)
    assert fs.inner is inner
    tid = inner.spawn()
    fs.create_dir(MON / "a")
    fs.rename(MON / "a", MON / "b")
    assert fs.exists(MON / "b")
    assert fs.read_child_dirs(MON) == ["b"]
    assert "tasks" in fs.read_child_files(MON / "b")
    assert fs.identity(MON / "b") == inner.identity(MON / "b")
    assert fs.can_open_for_write(MON / "b/tasks")
    assert fs.write_all(MON / "b/tasks", [b"%d" % tid]) == 1
    assert fs.read_text(MON / "b/tasks") == f"{tid}\n"
    with fs.open_reader(MON / "b/tasks") as reader:
        assert reader.read() == reader.read_page() == f"{tid}\n"
    assert answer(fs.mount_resctrl, ROOT) == "EBUSY"
    fs.remove_dir(MON / "b")
    assert [call.operation for call in fs.calls] == [
        "create_dir",
        "rename",
        "exists",
        "read_child_dirs",
        "read_child_files",
        "identity",
        "can_open_for_write",
        "write_all",
        "write",
        "read_text",
        "open_reader",
        "read_page",
        "mount_resctrl",
        "remove_dir",
    ]
    assert fs.calls[1] == Call("rename", MON / "a")


def test_counting() -> None:
    """An operation is counted on one path or on any, failures included; a record can be begun anew."""
    fs = RecordingFs(FakeFs(num_rmids=2))
    fs.create_dir(MON / "a")
    assert answer(fs.create_dir, MON / "b") == "ENOSPC"
    assert fs.count("create_dir") == 2
    assert fs.count("create_dir", MON / "b") == 1
    assert fs.count("create_dir", Path("/")) == 0
    fs.forget()
    assert fs.calls == []


def test_chunks_that_were_refused_are_recorded() -> None:
    """What was given to a file is known up to the chunk that failed."""
    fs = RecordingFs(FakeFs())
    tid = fs.inner.spawn()
    chunks = [b"%d" % tid, b"-1", b"%d" % tid]
    assert answer(fs.write_all, ROOT / "tasks", chunks) == "EINVAL"
    assert fs.written(ROOT / "tasks") == chunks[:2]


def test_chunks_after_a_refused_one_are_recorded() -> None:
    """Where somebody goes on after a failure the record does too."""
    fs = RecordingFs(FakeFs())
    tid = fs.inner.spawn()
    chunks = [b"-1", b"%d" % tid]
    assert fs.write_all(ROOT / "tasks", chunks, go_on=lambda failure: failure.written == 0) == 1
    assert fs.written(ROOT / "tasks") == chunks


def test_the_record_is_a_copy() -> None:
    """Whoever holds a record does not see it grow."""
    fs = RecordingFs(FakeFs())
    before = fs.calls
    fs.exists(ROOT)
    assert before == []


def test_many_callers() -> None:
    """No call is lost when several threads call."""
    fs = RecordingFs(FakeFs())
    workers = [threading.Thread(target=lambda: [fs.exists(ROOT) for _ in range(200)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert fs.count("exists", ROOT) == 800
