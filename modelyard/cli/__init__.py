"""The `modelyard` command: data on standard output, talk and progress on standard error."""
