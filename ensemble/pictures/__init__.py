"""Decoding, orientation and resizing of pictures, and heat maps."""
