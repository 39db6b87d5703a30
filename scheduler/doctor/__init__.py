"""What `promptd doctor` looks at: each look is a small function that finds something, and changes nothing."""
