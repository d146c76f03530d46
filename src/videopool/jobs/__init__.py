"""Jobs: what the command line can be asked to do."""
