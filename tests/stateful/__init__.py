"""Tests of resctrl and nri-resctrl-plugin."""
