"""From a data source to batches of tensors: sources, splits, the one way to open an image."""
