"""Load tests: plans for the number of users, a run against a stack that it starts, and its report."""
