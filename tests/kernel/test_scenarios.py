"""The scenarios S1 to S7, each body as it is, in guests whose kernel is real."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.kernel.jobs import SCENARIOS, Scenarios
from tests.lanes import expected_scenarios

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.image import Image
    from tests.kernel.jobs import Outcome

pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.jobs(name)) for name in SCENARIOS])
def test_every_scenario_passes(image: Image, outcome_of: Callable[[str], Outcome], name: str) -> None:
    """On each machine all scenarios about such a machine pass; none is skipped."""
    outcome = outcome_of(name)
    report = Scenarios.of(outcome)
    assert report.others == []
    assert outcome.run.status == 0, outcome.story
    assert report.passed


@pytest.mark.jobs(*SCENARIOS)
def test_as_many_ran_as_are_written(image: Image, outcome_of: Callable[[str], Outcome]) -> None:
    """Over all machines the numbers are those of the table in docs/runbooks/lanes.md, file by file."""
    passed: Counter[str] = Counter()
    for name in SCENARIOS:
        passed += Scenarios.of(outcome_of(name)).passed
    assert passed == expected_scenarios("kernel")
