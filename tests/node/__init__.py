"""The node lane: containerd, runc, NRI, the installed program and the kernel's resctrl on one node."""
