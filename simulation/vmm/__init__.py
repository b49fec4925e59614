"""A simulated VMM server in front of simulated Hyper-V hosts."""
