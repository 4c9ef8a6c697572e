"""Build TensorRT engines of the exported graphs. Planning works without TensorRT; building needs it."""
