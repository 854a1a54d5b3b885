"""Async verbs: gather, decide, act, verify. Used by tasks and by the CLI."""
