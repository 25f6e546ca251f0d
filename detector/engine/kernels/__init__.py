"""How a model's forward pass is made fast: attention, packed weights, cache, recorded steps."""
