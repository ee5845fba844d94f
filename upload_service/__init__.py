"""Receives zips of model apps, checks them, builds them and announces them."""
