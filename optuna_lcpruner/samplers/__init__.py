"""Samplers that learn from forecasts."""
