"""TensorRT engines of the exported graphs: what to build is planned without TensorRT, and built where it is."""
