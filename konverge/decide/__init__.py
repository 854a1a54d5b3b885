"""Pure decisions: (snapshot, now) -> decision; no I/O, no clock."""
