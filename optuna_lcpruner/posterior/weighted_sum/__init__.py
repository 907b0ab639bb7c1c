"""The paper's weighted sum of all families."""
