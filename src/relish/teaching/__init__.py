"""`relish teach`: a local page for people without a shell."""
