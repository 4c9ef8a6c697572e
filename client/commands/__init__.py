"""The commands that talk to a server. Each module has HELP, add_arguments and run (see landseer.client.cli)."""
