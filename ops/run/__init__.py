"""Starts, watches and stops the servers: Triton, the orchestrator, or both as one stack."""
