"""The fake and the kernel answer the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.fidelity.machine import LIMBO_MAY_DIFFER
from tests.kernel.fidelity.operations import Kind
from tests.kernel.jobs import FIDELITY, Fidelity, operations, patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.image import Image
    from tests.kernel.jobs import Outcome

pytestmark = pytest.mark.timeout(patience(1200))

COMMON = {
    "create_dir": {"ok", "EEXIST", "EINVAL", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS"},
    "remove_dir": {"ok", "EBUSY", "ENOENT", "ENOTDIR", "ENOTEMPTY", "EPERM"},
    "rename": {"ok", "EEXIST", "ENOENT", "EPERM", "EXDEV"},
    "read_text": {"ok", "EISDIR", "ENOENT"},
    "reader.read": {"ok", "ENODEV"},
    "write_all": {"ok", "E2BIG", "EACCES", "EINVAL", "EISDIR", "ENOENT", "ERANGE", "ESRCH"},
    "write_all, going on": {"ok", "EACCES", "ENOENT", "EROFS"},
    "mount_resctrl": {"ok", "EBUSY", "ENOENT"},
    "unmount": {"ok", "EBUSY"},
    "assign_tasks": {"ok", "GroupNotFoundError ENOENT", "TaskNotInParentError EINVAL"},
    "move_group": {"ok", "GroupExistsError EEXIST", "GroupNotFoundError ENOENT"},
    "task_groups": {"ok"},
    "list_groups, capacity": {"ok", "NotMountedError"},
    "cleanup_all": {"ok", "NotMountedError"},
}
"""Answers that a long comparison must have met; without them it would have been about nothing."""

BY_LIMBO = {
    "fidelity-none": {"create_dir": {"ENOSPC"}},
    "fidelity-endless": {"create_dir": {"EBUSY", "ENOSPC"}},
    "fidelity-real": {"create_dir": {"ok", "EBUSY"}},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.jobs(name)) for name in FIDELITY])
def test_nothing_differs(image: Image, outcome_of: Callable[[str], Outcome], name: str) -> None:
    """No operation is answered differently, except by limbo within its seconds, and all answers were met."""
    outcome = outcome_of(name)
    found = Fidelity.of(outcome)
    assert found is not None, outcome.story
    assert found.differences == [], "\n" + "\n".join(found.differences)
    assert outcome.run.status == 0, outcome.story
    assert found.operations == operations(FIDELITY[name])
    assert {kind for kind, _ in found.answers} == {kind.value for kind in Kind}
    must = [BY_LIMBO[name]] if name == "fidelity-real" else [COMMON, BY_LIMBO[name]]
    unmet = {(kind, answer) for each in must for kind, answers in each.items() for answer in answers}
    assert unmet <= set(found.answers), "unmet answers"
    assert found.waited <= LIMBO_MAY_DIFFER + 0.5
