"""The tools of `landseer data`, from the names on the command line to the files that they write."""
