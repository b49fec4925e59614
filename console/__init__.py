"""The ``leeward`` command. One file per command group, thin: parse, call, show."""
