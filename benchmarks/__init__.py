"""Benchmarks: each figure is a ratio to a control that was measured in the same run."""
