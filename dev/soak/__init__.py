"""Submits while processes die, and nothing may be paid for twice."""
