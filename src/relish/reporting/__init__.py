"""Pictures of data and results: grids, the book's curves, charts, pages."""
