"""Routing: the outcome data, training of the shipped artifact, and how good the routing is."""
