"""Shapes and noise on a grid, the linear part integrated exactly."""
