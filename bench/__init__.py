"""Measurements against peers and against this machine's own limits, in one run. Not part of the product."""
