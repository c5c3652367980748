"""Exact solvers that more than one domain or test uses."""
