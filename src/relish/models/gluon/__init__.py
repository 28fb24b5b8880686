"""Gluon models (MXNet's, the other tab of the book): their files, their networks, and which belongs to which."""
