"""What a label means: pure functions; what must be kept is kept behind a port."""
