"""From whatever holds the images to batches of tensors: sources, splits, the one way an image is opened."""
