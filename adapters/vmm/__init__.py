"""System Center Virtual Machine Manager: what it knows about the hosts of a Hyper-V site (requirements A3, A5)."""
