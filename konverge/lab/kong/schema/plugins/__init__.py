"""Configuration schemas of the bundled plugins, by family. Which ones are known: docs/reference/lab-kong.md."""
