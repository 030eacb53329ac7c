"""The command line: `convlab` and its subcommands."""
