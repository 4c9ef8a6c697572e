"""The dashboards: one file each, one line per query."""
