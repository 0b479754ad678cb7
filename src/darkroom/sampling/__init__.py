"""From prompt to picture: one loop, its starts and its guides, and the request that every picture carries."""
