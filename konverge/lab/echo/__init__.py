"""The sample application of the lab: it says what reached it, streams, holds WebSockets and leaves politely."""
