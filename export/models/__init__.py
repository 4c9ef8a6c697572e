"""Neural networks, each written once in torch; serving runs them as exported graphs."""
