"""The hardware lane: one script for a real machine with RDT, and the probe that decides about it."""
