"""Kong's Admin and Status API: client, declarative configuration, error mapping."""
