"""Arrays that speak Swordfish, SNIA's extension of Redfish: the second dialect behind the port of arrays."""
