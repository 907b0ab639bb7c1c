"""What became of the decisions, for people."""
