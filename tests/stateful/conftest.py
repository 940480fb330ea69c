"""Gives the searches the time that they take at full size."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each take hours where the profile is `full`; what the tests say of themselves is for the others."""
    if settings.get_current_profile_name() == "full":
        for item in items:
            item.add_marker(pytest.mark.timeout(10_000), append=False)
