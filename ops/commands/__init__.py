"""The commands of ops/, one per module, each with HELP, add_arguments and run (see landseer.client.cli)."""
