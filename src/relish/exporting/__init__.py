"""A model as one ONNX file with its preprocessing inside, and the proof that it answers alike."""
