"""The web edge that all services share: identity, problems, and the application around the routes."""
