"""Typed Linux resctrl."""
