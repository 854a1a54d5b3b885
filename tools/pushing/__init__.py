"""Parts of the benchmark of pushes: the servers, the contenders, the measuring."""
