"""How weights become served graphs."""
