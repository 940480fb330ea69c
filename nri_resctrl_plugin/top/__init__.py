"""What every group uses, again and again: rows for a table or for JSON.

Owns: its public names. A `Watch` looks at the groups; what it saw is a `View`.
"""

from __future__ import annotations

from nri_resctrl_plugin.top.rows import GroupKind, Row, View, sort_rows
from nri_resctrl_plugin.top.watch import Watch

__all__ = ["GroupKind", "Row", "View", "Watch", "sort_rows"]
