"""Steps 1 to 3: source models, and the target model made from one by copying all but the output layer."""
