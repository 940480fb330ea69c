from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin import (
    ContainerState,
    Exists,
    Failed,
    PodResctrlAddOrUpdate,
    PodResctrlEvent,
    PodResctrlRemoved,
    PodUid,
    RetryFailure,
    RetryReport,
    RetrySubject,
)
from nri_resctrl_plugin.jsonl import LineError, event_from_line, event_lines, payload

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
UIDS = st.text(max_size=80).map(PodUid)
PATHS = st.text(alphabet=st.characters(exclude_characters="\0"), min_size=1).map(
    lambda name: Path("/g", name)
)
GROUPS = st.one_of(
    st.builds(Exists, PATHS, st.lists(PATHS, max_size=2).map(tuple)),
    st.text().map(Failed),
)
COUNTS = st.integers(min_value=0, max_value=10**6)
EVENTS: st.SearchStrategy[PodResctrlEvent] = st.one_of(
    st.builds(PodResctrlAddOrUpdate, UIDS, GROUPS, COUNTS, COUNTS), UIDS.map(PodResctrlRemoved)
)


@given(EVENTS)
def test_a_line_gives_back_its_event(event: PodResctrlEvent) -> None:
    """Whatever is in an event, hostile text included, one line carries it whole."""
    line = event_lines()(event)
    assert line.count("\n") == 1
    assert event_from_line(line) == event


def test_the_envelope_stands_before_the_events_own_fields() -> None:
    """A line begins with schema, seq, ts and type; seq counts from 1."""
    line_of = event_lines(lambda: MOMENT)
    first = json.loads(line_of(PodResctrlRemoved(PodUid("a"))))
    second = json.loads(
        line_of(PodResctrlAddOrUpdate(PodUid("b"), Exists(Path("/r/g"), (Path("/r/c/g"),)), 2, 1))
    )
    assert list(first) == ["schema", "seq", "ts", "type", "pod_uid"]
    assert first == {
        "schema": 1,
        "seq": 1,
        "ts": "2026-01-31T12:00:00.123456Z",
        "type": "Removed",
        "pod_uid": "a",
    }
    assert second == {
        "schema": 1,
        "seq": 2,
        "ts": "2026-01-31T12:00:00.123456Z",
        "type": "AddOrUpdate",
        "pod_uid": "b",
        "group_state": {"type": "Exists", "path": "/r/g", "others": ["/r/c/g"]},
        "total_containers": 2,
        "reconciled_containers": 1,
    }


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "7", "{}", '{"schema": 2, "type": "Removed", "pod_uid": "u"}', '{"schema": 1}',
     '{"schema": 1, "type": "Other"}', '{"schema": 1, "type": "AddOrUpdate", "pod_uid": "u"}'],
)  # fmt: skip
def test_what_is_no_event_line_is_refused(line: str) -> None:
    """A bad line is one typed error, never a bare KeyError."""
    with pytest.raises(LineError):
        event_from_line(line)


def test_reports_and_states_have_a_json_form() -> None:
    """Every value that the control socket answers with is plain JSON, errors told by class and message."""
    report = RetryReport(
        groups_failed=1, failures=(RetryFailure(RetrySubject.GROUP, "u", ValueError("why")),)
    )
    shown = json.loads(json.dumps(payload(report)))
    assert shown["groups_failed"] == 1
    assert shown["failures"] == [
        {"subject": "group", "id": "u", "error": {"error": "ValueError", "message": "why"}}
    ]
    assert payload(ContainerState.PARTIAL) == "partial"
    assert payload(Failed("why")) == {"type": "Failed", "reason": "why"}
