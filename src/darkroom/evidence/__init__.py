"""Is it really better? Jobs over jobs: the trial, its report, the demo."""
