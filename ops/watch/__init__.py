"""Watching a running Landseer: Prometheus, the dashboards' queries, live figures in a terminal."""
