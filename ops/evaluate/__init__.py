"""Measuring search quality: data sets, ranking methods and figures, for `landseer evaluate`."""
