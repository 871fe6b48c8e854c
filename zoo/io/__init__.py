"""What goes into a run and what comes out: requests, artifacts, and their files with metadata."""
