"""A WS-Management server as Windows' WinRM is one, in front of whatever answers leeward's scripts."""
