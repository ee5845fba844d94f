"""Running copies of models: the protocol, the sandboxed process behind it, and the routes to them."""
