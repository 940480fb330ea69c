"""One fault at each call of each scenario: nothing untyped, nothing leaked, nothing lost, then the truth.

Each scenario's body is run on the fake once without a fault, which tells its calls to the file system, and
then once for each of these, with that call failing. Each call gets one errno, in turn for each kind of call
(an operation on a kind of path), so that a kind meets all of them once there are so many calls of it. The
profile `full` of hypothesis gives each call all of them: `nox -s searches`, each night.
"""

from __future__ import annotations

import errno
import re
from collections import Counter, defaultdict
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest
from attrs import define, field
from hypothesis import settings

from tests.stateful.fault_sweep import PARTS, Fault, Run, run_with
from tests.stateful.swept_bodies import Body, bodies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resctrl.testing import Call

ERRNOS: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENODEV,
    errno.EBUSY,
    errno.ENOSPC,
    errno.EINVAL,
    errno.ESRCH,
    errno.EIO,
    errno.EROFS,
    errno.E2BIG,
)
FILES: Final = sorted({body.name.partition("::")[0] for body in bodies(PARTS)})
LEAST_CALLS: Final = 4000
"""How many calls the scenarios make at least; one fault is tried at each."""

pytestmark = pytest.mark.timeout(900)


@define
class Plan:
    """What is to be tried.

    Attributes:
        clean: What comes of each body without a fault.
        faults: What is tried with each body.
        kinds: With which errnos each kind of call fails, and how many calls there are of it.
    """

    clean: dict[Body, Run] = field(factory=dict)
    faults: dict[Body, list[Fault]] = field(factory=lambda: defaultdict(list))
    kinds: dict[str, Counter[int]] = field(factory=lambda: defaultdict(Counter))


def kind_of(call: Call, root: Path) -> str:
    """Return what kind of call it is: the operation, and the path without the names that somebody chose."""
    path = re.sub(r"/[0-9]+(?=/|$)", "/<id>", str(call.path).replace(str(root), "<root>"))
    path = re.sub(r"mon_groups/[^/]+", "mon_groups/<group>", path)
    path = re.sub(r"<root>/(?!info|mon_|tasks|cpus|schemata)[^/]+", "<root>/<group>", path)
    return f"{call.operation} {path}"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """What is to be tried, with every body run once."""
    everything = settings.get_current_profile_name() == "full"
    plan = Plan()
    turns: dict[str, Iterator[int]] = defaultdict(count)
    for body in bodies(PARTS):
        run = plan.clean[body] = run_with(body)
        for call, nth in run.places():
            kind = kind_of(call, run.root)
            first = next(turns[kind])
            for number in ERRNOS if everything else (ERRNOS[first % len(ERRNOS)],):
                plan.faults[body].append(Fault(call.operation, nth, number))
                plan.kinds[kind][number] += 1
    return plan


def test_without_a_fault_everything_is_as_it_must_be(plan: Plan) -> None:
    """What judges finds nothing wrong then; and it judges: every scenario with a plugin comes to an end."""
    assert {body.name: run.wrong for body, run in plan.clean.items() if run.wrong} == {}
    assert len(plan.clean) > 200
    with_a_plugin = [body for body in plan.clean if not body.name.startswith(("test_library", "test_s10"))]
    assert [body.name for body in with_a_plugin if not plan.clean[body].ends] == []


def test_each_call_and_each_errno_is_covered(plan: Plan) -> None:
    """One fault at each call, and all errnos at each kind of call of which there are as many."""
    tried = sum(map(len, plan.faults.values()))
    calls = sum(len(list(run.places())) for run in plan.clean.values())
    assert tried >= calls >= LEAST_CALLS
    short = {kind for kind, numbers in plan.kinds.items() if len(numbers) < len(ERRNOS)}
    assert all(plan.kinds[kind].total() < len(ERRNOS) for kind in short)
    assert sum(plan.kinds[kind].total() for kind in short) < tried / 20


@pytest.mark.parametrize("file", FILES)
def test_after_a_fault_the_truth_is_reached(plan: Plan, file: str) -> None:
    """Whichever call fails: only typed errors, no group leaked, no event lost, and one retry and audit mend.

    A fault that the body does not come to, because it went another way, is none: there must be hardly any.
    """
    wrong: list[str] = []
    tried = missed = 0
    for body, faults in plan.faults.items():
        if body.name.partition("::")[0] != file:
            continue
        for fault in faults:
            run = run_with(body, fault)
            tried, missed = tried + 1, missed + (not run.met)
            at = f"{body.name}, {errno.errorcode[fault.number]} at {fault}"
            wrong += [f"{at}: {what}" for what in run.judged_by(plan.clean[body])]
    assert wrong == []
    assert missed <= tried / 25, f"{missed} of {tried} faults did not come to pass"
