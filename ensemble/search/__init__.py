"""How a query is answered: describe, first search, expansion, second search, re-ranking."""
