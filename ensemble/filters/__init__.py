"""The filter language: what a filter says, and which values it lets through."""
