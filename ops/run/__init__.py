"""Starts, watches and stops servers: Triton, the orchestrator, the two as one stack."""
