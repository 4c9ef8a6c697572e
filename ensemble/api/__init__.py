"""gRPC in and out: services, parsing of requests, answers, status codes, health."""
