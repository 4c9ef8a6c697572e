"""Index engines, the live index, visual words, the collection with its single writer, and readiness."""
