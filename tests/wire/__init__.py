"""Tests of the wire layer that carry no conformance number."""
