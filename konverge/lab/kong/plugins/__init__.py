"""The plugins that really act. The others are validated and listed, and do nothing: docs/reference/lab-kong.md."""
