"""What every room stands on: errors, whole files, seeds, fingerprints, progress. Imports nothing of ours."""
