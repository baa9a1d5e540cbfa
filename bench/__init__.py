"""Benchmarks: how fast fastbp is, and against what. See README.md in this directory."""
