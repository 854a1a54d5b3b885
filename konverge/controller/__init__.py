"""The long-running process: one set of caches and one rendered configuration for any number of proxies."""
