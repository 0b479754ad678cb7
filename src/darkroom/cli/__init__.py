"""The command line: one face over the jobs. It holds no logic of its own."""
