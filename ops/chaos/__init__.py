"""Faults against the real processes: what callers see, how soon the service recovers, and what is lost."""
