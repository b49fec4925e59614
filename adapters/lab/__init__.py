"""The lab: sites on one machine, whose machines have real disk images and really run (design §7).

The modules that a guest process imports (``documents``, ``layout``, ``definition``, ``storage``, ``hrl``,
``snapshots``, ``vdisk``, ``database``, ``ledger``, ``network``, ``guest*``) use the standard library only, so that
a machine boots in the time a Python interpreter takes.
"""
