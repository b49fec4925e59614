"""Azure's counterparts: Azurite, Azure Storage's own simulator, as a process beside a demonstration or a test."""
