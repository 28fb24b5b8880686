"""From whatever holds the pictures to batches of tensors: sources, splits, the one way a picture is opened."""
