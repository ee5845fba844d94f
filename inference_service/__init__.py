"""Starts, freezes and stops running copies of models, and owns the routes to them."""
