"""Custom resources: schemas, pruning, defaults, validation and their publication."""
