"""The read-only web page of a controller: the fleet as a grid of proxies, live by server-sent events."""
