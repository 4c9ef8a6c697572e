"""The commands of ops/, one per module, each with add_arguments and run (see landseer.client.cli.COMMANDS)."""
