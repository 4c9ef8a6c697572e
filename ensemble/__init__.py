"""The orchestrator: a gRPC service that answers queries over Triton, a store and an index.

This package is not one of Triton's ensembles, which chain models within one request. Those are `describe` and
`describe_full`, declared in `inference.contracts`; in this package "ensemble" as a word always means them.
"""
