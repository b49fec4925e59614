"""The data plane: change logs, block streams, recovery points, replica stores. No Temporal import here."""
