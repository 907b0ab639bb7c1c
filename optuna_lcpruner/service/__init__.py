"""Forecasts on another machine than the training."""
