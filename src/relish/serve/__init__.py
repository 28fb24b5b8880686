"""Answers over HTTP, from an exported file, without torch."""
