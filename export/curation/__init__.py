"""Cleaning of training data, and its overlap with evaluation data: SIFT with affine verification. No torch here."""
