"""Spatial verification: the geometry, and the verifier for candidates in the store."""
