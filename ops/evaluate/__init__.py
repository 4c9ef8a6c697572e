"""`landseer evaluate`: how well the served descriptors find what they should."""
