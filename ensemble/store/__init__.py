"""The LMDB store: records, descriptors, local features, visual words. Everything else is derived from it."""
