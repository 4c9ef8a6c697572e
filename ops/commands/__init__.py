"""The commands of this package. Each module has HELP, add_arguments and run (see landseer.client.cli)."""
