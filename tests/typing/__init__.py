"""Type-checked as a user would write it; never executed."""
