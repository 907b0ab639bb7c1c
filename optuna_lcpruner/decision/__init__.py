"""From a forecast to a decision and its reason."""
