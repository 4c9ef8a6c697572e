"""The commands of this package. Each module has add_arguments and run, and an entry in landseer.client.cli.COMMANDS."""
