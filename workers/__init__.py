"""Process entry points by role: control, site, replication, and the embedded engine that runs all of them."""
