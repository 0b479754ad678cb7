"""What we learn from: pictures with captions, fitted into buckets, drawn in a fixed order."""
