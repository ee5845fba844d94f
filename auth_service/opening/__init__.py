"""The way of a signed-in browser to a model's own host."""
