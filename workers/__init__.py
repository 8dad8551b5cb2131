"""One stage on one machine: what it is computed from, how it is run, where its outcome lies."""
