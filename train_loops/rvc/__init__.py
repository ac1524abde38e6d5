"""Training of RVC voices in plain torch: everything that needs no cluster and no tracker."""
