"""Index engines, the live index, visual words, the collection, and its single writer."""
