"""Benchmarks: what serving, re-ranking and instrumentation cost, each compared with running without it."""
