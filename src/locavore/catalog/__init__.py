"""Facts with sources: models, hardware, engines, licenses, rates, scores. Data, not code."""
