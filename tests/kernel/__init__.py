"""The kernel lane: a guest with the genuine resctrl and a software model of the registers below it."""
