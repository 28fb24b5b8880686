"""A model as one ONNX file with its preprocessing inside, and the comparison that shows its predictions agree."""
