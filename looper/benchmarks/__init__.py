"""Benchmarks: sets of tasks and their judges."""
