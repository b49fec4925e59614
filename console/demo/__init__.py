"""``leeward demo``: scenarios that show the main job end to end, and measure it."""
