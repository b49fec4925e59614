"""``python -m console`` is ``leeward``."""

from console.entry import main

main()
