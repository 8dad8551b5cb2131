"""Tables as values: typed columns and cells, and the writers that render them."""
