"""What explanations of flags are worth: how often the nearest is of the same kind."""
