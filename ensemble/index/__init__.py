"""What is searched: index engines, the live index, words, the collection, and the one writer."""
