"""`landseer train`, from the names on the command line to the files that it writes."""
