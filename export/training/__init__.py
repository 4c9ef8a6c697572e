"""Train whitening, descriptor heads and detectors. Every training is seeded and can be resumed."""
