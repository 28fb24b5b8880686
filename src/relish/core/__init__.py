"""The base of every room: errors, files, cache, seeds, progress, run folders. It imports no other room."""
