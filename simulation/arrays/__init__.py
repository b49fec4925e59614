"""Simulated storage arrays: volumes in files that two arrays mirror synchronously, and their management by CIM-XML."""
