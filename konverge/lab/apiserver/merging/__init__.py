"""Patches, field ownership and server-side apply."""
