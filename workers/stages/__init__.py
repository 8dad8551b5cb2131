"""One module for each kind of stage; `workers.stages.table` lists them."""
