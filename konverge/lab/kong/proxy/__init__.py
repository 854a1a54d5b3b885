"""The proxy: from a matched route to an upstream and back."""
