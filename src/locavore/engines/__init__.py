"""Adapters to what computes answers: the embedded engine, local servers, cloud APIs."""
