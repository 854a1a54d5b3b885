"""The kinds of the Gateway API."""
