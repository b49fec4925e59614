"""Ports to the systems that leeward drives, and one folder for each system."""
