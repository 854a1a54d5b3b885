"""Kong with a database: several nodes share one store, each follows it with Kong's delays."""
