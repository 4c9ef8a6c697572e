"""Tensor contracts, the served profile, and calls of Triton."""
