"""The platform's own weights: where they lie, and how they come here from a folder or a hub."""
