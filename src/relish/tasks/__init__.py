"""One file a job a user can ask for, each wiring the rooms below together."""
