"""The data tools, from the names on the command line to the files they write."""
