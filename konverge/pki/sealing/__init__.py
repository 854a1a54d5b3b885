"""Identities at rest under envelope encryption: the envelope, the keys that wrap it, the store."""
