"""The commands that talk to a server. Each module has add_arguments and run, and an entry in landseer.client.cli."""
