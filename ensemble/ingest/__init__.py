"""From pictures to records: indexing, crops of regions, database augmentation, learning a codebook."""
