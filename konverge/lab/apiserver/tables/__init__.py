"""What kubectl prints: columns per kind, rendered by the server."""
