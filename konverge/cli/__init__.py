"""The konverge command."""
