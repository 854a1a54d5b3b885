"""The Admin API and the Status API."""
