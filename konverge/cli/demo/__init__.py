"""konverge lab demo: the main job under load, and a report that counts every request."""
