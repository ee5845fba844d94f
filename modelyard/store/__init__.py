"""What is kept: rows, events on their way out, leases and files."""
