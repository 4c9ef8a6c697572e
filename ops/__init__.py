"""Runs, watches, measures, evaluates and trains Landseer; the folders are the rooms."""
