"""Learned estimates of how well a model answers; plain Python over shipped coefficients."""
