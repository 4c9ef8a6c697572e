"""Bulk indexing: pictures described by many processes, and written by one."""
