"""A model behind HTTP: an interface for programs, a page for people. Nothing here needs torch."""
