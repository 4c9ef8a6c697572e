"""Runs the exported graphs: in Triton, through our stand-in for its onnxruntime backend, and in process.

`backends/` is a backend folder of Triton: each folder in it is one backend, named as in `config.pbtxt`. Triton itself
loads `backends/onnxruntime/model.py`, an adapter around `runner` and `engines`.
"""
