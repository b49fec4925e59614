"""Counterparts of the systems that leeward drives, for the demonstration and the tests; no adapter knows of them."""
