"""The process: the `serve` command and the server it runs."""
