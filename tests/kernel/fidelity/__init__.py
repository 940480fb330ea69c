"""The fidelity machine: the same operations on the fake and on the kernel, answer by answer."""
