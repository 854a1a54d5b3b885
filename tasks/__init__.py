"""Prefect tasks: thin shells around one verb each."""
