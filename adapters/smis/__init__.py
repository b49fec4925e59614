"""Arrays that are managed by SMI-S: CIM-XML over HTTPS, by pywbem (requirements A6)."""
