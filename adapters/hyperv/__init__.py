"""Hyper-V hosts, driven over WinRM by the scripts in this package."""
