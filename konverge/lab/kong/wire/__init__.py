"""The wire of the stand-in: HTTP/1.1, HTTP/2 and TLS on asyncio transports.

It is written out instead of taken from a web server, because what an orchestrator has to survive happens on this
level: a FIN after half a request, a 400 page after a completed handshake, a reset at byte N, a GOAWAY.
"""
