"""Streams between clients and containers: exec, attach and port-forward over WebSocket and SPDY."""
