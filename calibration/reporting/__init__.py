"""Reports: what an artifact does on questions that it was not fitted to."""
