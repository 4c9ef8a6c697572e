"""Turn weights into served graphs: models, training, data sets, export and checks."""
