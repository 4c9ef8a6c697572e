"""A store in PostgreSQL, which several orchestrators over one Milvus share."""
