"""What is suspected of a dataset: unreadable, doubled, wrongly labelled, odd images."""
