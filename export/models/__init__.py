"""The neural parts, each written once, in torch; serving sees them only as graphs."""
