"""Authorities, leaves, trust bundles and the files that Kong and clients load."""
