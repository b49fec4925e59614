"""``python -m console`` is ``leeward``."""

from console.main import main

main()
