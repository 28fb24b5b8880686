"""Hostile input of every kind that relish reads, made by Hypothesis; `make fuzz` runs it for minutes."""
