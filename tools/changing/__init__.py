"""Parts of the benchmark of a change."""
