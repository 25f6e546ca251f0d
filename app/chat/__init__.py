"""A request under way: its generation, each choice's pieces, and the stop texts in them."""
