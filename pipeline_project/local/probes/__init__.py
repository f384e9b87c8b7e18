"""What `pipeline doctor` looks at. Every probe really looks, and gives what it found wrong: an empty list is good news."""
