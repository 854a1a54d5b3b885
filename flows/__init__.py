"""Prefect flows: composition only, no business rules."""
