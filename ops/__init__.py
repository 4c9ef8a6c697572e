"""Run it, watch it, measure it: Triton and its stand-in backend, the two servers together, demo, benchmarks."""
