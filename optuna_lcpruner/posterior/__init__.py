"""Posterior engines: curve + what the study knows -> Forecast."""
