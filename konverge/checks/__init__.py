"""The preflight registry: one record per check, each a pure look at a scene that was gathered before."""
