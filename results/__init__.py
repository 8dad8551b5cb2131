"""Tables and reports; imports nothing else of the project."""
