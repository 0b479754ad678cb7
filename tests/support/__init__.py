"""What several test files compute alike."""
