"""Spatial verification: the geometry, and the verifier that reads candidates from the store."""
