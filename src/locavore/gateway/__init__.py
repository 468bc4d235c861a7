"""What listens: the data plane (`server`), and an ASGI application beside it."""
