"""Watches a running Landseer: Prometheus, the dashboards and their queries, and live figures in a terminal."""
