"""The process: the `serve` command and the server that it runs."""
