"""What is learned: whitening, descriptor heads, detectors. Everything by seed, and resumable."""
