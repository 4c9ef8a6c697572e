"""The LMDB store, the only truth: records, descriptors, local features, words."""
