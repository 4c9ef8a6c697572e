"""Runs the exported graphs: Triton's Python backend, and the same code in process."""
