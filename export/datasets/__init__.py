"""Photographs with what is known of them, from the formats in which data sets come. No torch here."""
