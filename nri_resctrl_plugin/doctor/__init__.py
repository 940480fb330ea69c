"""The doctor: can this machine monitor pods, and if not, what is missing and how is it mended.

Owns: its public names. `diagnose` climbs the ladder; what it finds is a `Diagnosis`.
"""

from __future__ import annotations

from nri_resctrl_plugin.doctor.findings import Diagnosis, Finding, Level
from nri_resctrl_plugin.doctor.host import Host
from nri_resctrl_plugin.doctor.ladder import diagnose

__all__ = ["Diagnosis", "Finding", "Host", "Level", "diagnose"]
