"""Cleaning of training data, and its overlap with what is evaluated on: SIFT with affine verification. No torch here."""
