"""How a query is answered: pipeline, index, store and the gRPC service over them."""
