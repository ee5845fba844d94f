"""Processes: services, settings, logs, start and drain."""
