"""Many jobs: sweep files, plans, execution, tracking, and the command line."""
