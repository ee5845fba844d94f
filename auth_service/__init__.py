"""Who calls: the owner's key, and the browser sessions that it opens."""
