"""Clean training data and find its overlap with evaluation data, by SIFT and affine verification. No torch here."""
