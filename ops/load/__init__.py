"""Load tests: plans for the number of users, a run against a stack of our own, and its report."""
