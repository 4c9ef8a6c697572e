"""What our own machinery costs, measured side by side against doing without it."""
