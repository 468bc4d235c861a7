"""One request, end to end, without HTTP: attempts, retries, fallbacks, limits, the record."""
