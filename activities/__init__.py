"""Activities: one module per port. Thin: find the adapter, call it, translate its errors, heartbeat."""
