"""One file a page: `routes(studio)` is all that the application knows of it."""
